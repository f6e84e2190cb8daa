// Receives a number of OpenIGTLink messages with the C++ library, CRC check on, and prints how long that took.
//
// Usage: igtl_receiver PORT COUNT
// Output: one line "messages seconds p50_ms p99_ms"; seconds from the end of the first to the end of the last message,
// latencies from the time stamps in the headers.

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "igtlImageMessage.h"
#include "igtlMessageHeader.h"
#include "igtlTimeStamp.h"
#include "igtlTransformMessage.h"
#include "igtl_client.h"

namespace
{

double UtcSeconds()
{
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

// Body of the message whose header was read; false when its CRC is wrong.
bool ReceiveBody(igtl::Socket* socket, igtl::MessageHeader::Pointer& header)
{
  igtl::MessageBase::Pointer message;
  if (std::strcmp(header->GetDeviceType(), "IMAGE") == 0)
  {
    message = igtl::ImageMessage::New().GetPointer();
  }
  else
  {
    message = igtl::TransformMessage::New().GetPointer();
  }
  message->SetMessageHeader(header);
  message->AllocatePack();
  if (socket->Receive(message->GetPackBodyPointer(), message->GetPackBodySize()) != message->GetPackBodySize())
  {
    return false;
  }
  return (message->Unpack(1) & igtl::MessageHeader::UNPACK_BODY) != 0;
}

double Percentile(std::vector<double> values, double fraction)
{
  if (values.empty())
  {
    return 0.0;
  }
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(fraction * (values.size() - 1))];
}

} // namespace

int main(int argc, char* argv[])
{
  if (argc != 3)
  {
    std::fprintf(stderr, "Usage: %s PORT COUNT\n", argv[0]);
    return 2;
  }
  const int count = std::atoi(argv[2]);
  igtl::ServerSocket::Pointer server = igtl::ServerSocket::New();
  igtl::Socket::Pointer socket = ClientOn(server, std::atoi(argv[1]));
  if (socket.IsNull())
  {
    return 1;
  }
  std::vector<double> latencies;
  double first = 0.0, last = 0.0;
  int received = 0;
  igtl::MessageHeader::Pointer header = igtl::MessageHeader::New();
  igtl::TimeStamp::Pointer stamp = igtl::TimeStamp::New();
  while (received < count)
  {
    header->InitPack();
    if (socket->Receive(header->GetPackPointer(), header->GetPackSize()) != header->GetPackSize())
    {
      break;
    }
    header->Unpack();
    if (!ReceiveBody(socket, header))
    {
      break;
    }
    last = UtcSeconds();
    first = received == 0 ? last : first;
    header->GetTimeStamp(stamp);
    latencies.push_back(last - stamp->GetTimeStamp());
    ++received;
  }
  std::printf("%d %.9f %.6f %.6f\n", received, last - first, 1e3 * Percentile(latencies, 0.5),
              1e3 * Percentile(latencies, 0.99));
  return 0;
}
