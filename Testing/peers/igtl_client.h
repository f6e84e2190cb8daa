// One client on a port: what the peers here begin with.

#ifndef igtl_client_h
#define igtl_client_h

#include <cstdio>

#include "igtlServerSocket.h"

// Listens, says so, and waits half a minute for a client; null, with the reason on stderr, when none comes.
inline igtl::Socket::Pointer ClientOn(igtl::ServerSocket* server, int port)
{
  igtl::Socket::Pointer socket;
  if (server->CreateServer(port) < 0)
  {
    std::fprintf(stderr, "cannot listen on port %d\n", port);
    return socket;
  }
  std::printf("listening\n");
  std::fflush(stdout);
  socket = server->WaitForConnection(30000);
  if (socket.IsNull())
  {
    std::fprintf(stderr, "nobody connected\n");
  }
  return socket;
}

#endif
