// An MR-compatible robot as ProstateBRP's speak, on Debian's OpenIGTLink library: CMD_n is answered by ACK_n and a STATUS
// named after the phase, CLB_n and TGT_n by the same transform as ACK_n and CALIBRATION or TARGETING.
//
// Usage: igtl_robot PORT
// A STRING named MODE says how it behaves from then on:
//   good      as above              twice     every answer twice          reversed  the STATUS before the ACK
//   late      with the next command stranger  the number and the name of another one   leave  hangs up instead
// Output: one line for everything that it heard.

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "igtlMessageHeader.h"
#include "igtlServerSocket.h"
#include "igtlStatusMessage.h"
#include "igtlStringMessage.h"
#include "igtlTransformMessage.h"

namespace
{

template <typename Kind>
bool Read(igtl::Socket* socket, igtl::MessageHeader::Pointer& header, typename Kind::Pointer& message)
{
  message->SetMessageHeader(header);
  message->AllocatePack();
  if (socket->Receive(message->GetPackBodyPointer(), message->GetPackBodySize()) != message->GetPackBodySize())
  {
    return false;
  }
  return (message->Unpack(1) & igtl::MessageHeader::UNPACK_BODY) != 0;
}

template <typename Pointer>
void Send(igtl::Socket* socket, Pointer& message)
{
  message->Pack();
  socket->Send(message->GetPackPointer(), message->GetPackSize());
}

void SendStatus(igtl::Socket* socket, const std::string& phase)
{
  igtl::StatusMessage::Pointer status = igtl::StatusMessage::New();
  status->SetDeviceName(phase.c_str());
  status->SetCode(igtl::StatusMessage::STATUS_OK);
  status->SetStatusString("reached");
  Send(socket, status);
}

// One peer, until it leaves or is left.
class Robot
{
public:
  Robot(igtl::Socket* socket, std::string& mode) : Link(socket), Mode(mode) {}

  void Serve()
  {
    igtl::MessageHeader::Pointer header = igtl::MessageHeader::New();
    for (;;)
    {
      header->InitPack();
      if (this->Link->Receive(header->GetPackPointer(), header->GetPackSize()) != header->GetPackSize())
      {
        return;
      }
      header->Unpack();
      if (!this->Hear(header))
      {
        return;
      }
    }
  }

private:
  bool Hear(igtl::MessageHeader::Pointer& header)
  {
    const std::string name = header->GetDeviceName();
    const std::string number = name.size() > 4 ? name.substr(4) : "";
    if (std::strcmp(header->GetDeviceType(), "STRING") == 0)
    {
      igtl::StringMessage::Pointer text = igtl::StringMessage::New();
      if (!Read<igtl::StringMessage>(this->Link, header, text))
      {
        return false;
      }
      std::printf("%s %s\n", name.c_str(), text->GetString());
      if (name == "MODE")
      {
        this->Mode = text->GetString();
        return true;
      }
      const std::string word = text->GetString();
      return this->Answer(word, [this, number, word](const std::string& ack) {
        igtl::StringMessage::Pointer answer = igtl::StringMessage::New();
        answer->SetDeviceName(("ACK_" + (ack.empty() ? number : ack)).c_str());
        answer->SetString(word.c_str());
        Send(this->Link, answer);
      });
    }
    if (std::strcmp(header->GetDeviceType(), "TRANSFORM") == 0)
    {
      igtl::TransformMessage::Pointer place = igtl::TransformMessage::New();
      if (!Read<igtl::TransformMessage>(this->Link, header, place))
      {
        return false;
      }
      igtl::Matrix4x4 matrix;
      place->GetMatrix(matrix);
      std::printf("%s %.3f %.3f %.3f\n", name.c_str(), matrix[0][3], matrix[1][3], matrix[2][3]);
      return this->Answer(name.compare(0, 4, "CLB_") == 0 ? "CALIBRATION" : "TARGETING",
                          [this, number, place](const std::string& ack) {
        igtl::Matrix4x4 same;
        place->GetMatrix(same);
        igtl::TransformMessage::Pointer answer = igtl::TransformMessage::New();
        answer->SetDeviceName(("ACK_" + (ack.empty() ? number : ack)).c_str());
        answer->SetMatrix(same);
        Send(this->Link, answer);
      });
    }
    this->Link->Skip(header->GetBodySizeToRead(), 0);
    return true;
  }

  // "acknowledge" takes the number of another command, or "" for that of its own.
  bool Answer(const std::string& phase, const std::function<void(const std::string&)>& acknowledge)
  {
    const auto owed = this->Owed;
    this->Owed.clear();
    for (const auto& answer : owed)
    {
      answer();
    }
    if (this->Mode == "leave")
    {
      return false;
    }
    if (this->Mode == "late")
    {
      this->Owed.push_back([this, phase, acknowledge] { acknowledge(""); SendStatus(this->Link, phase); });
      return true;
    }
    if (this->Mode == "stranger")
    {
      acknowledge("9999");
      SendStatus(this->Link, "Camera");
      return true;
    }
    if (this->Mode == "reversed")
    {
      SendStatus(this->Link, phase);
    }
    for (int turn = 0; turn < (this->Mode == "twice" ? 2 : 1); ++turn)
    {
      acknowledge("");
    }
    for (int turn = 0; turn < (this->Mode == "twice" ? 2 : this->Mode == "reversed" ? 0 : 1); ++turn)
    {
      SendStatus(this->Link, phase);
    }
    return true;
  }

  igtl::Socket* Link;
  std::string& Mode;
  std::vector<std::function<void()>> Owed;
};

} // namespace

int main(int argc, char* argv[])
{
  if (argc != 2)
  {
    std::fprintf(stderr, "Usage: %s PORT\n", argv[0]);
    return 2;
  }
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  igtl::ServerSocket::Pointer server = igtl::ServerSocket::New();
  if (server->CreateServer(std::atoi(argv[1])) < 0)
  {
    std::fprintf(stderr, "cannot listen on port %s\n", argv[1]);
    return 1;
  }
  std::string mode = "good";
  for (;;)
  {
    igtl::Socket::Pointer socket;
    socket = server->WaitForConnection(100);
    if (socket.IsNotNull())
    {
      std::printf("connected\n");
      Robot(socket, mode).Serve();
      socket->CloseSocket();
      std::printf("left\n");
    }
  }
}
