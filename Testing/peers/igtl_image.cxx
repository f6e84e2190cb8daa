// Reads images with the C++ library, prints where it understands them to lie, and sends each back, built anew.
//
// Usage: igtl_image PORT COUNT
// Output: for each image one line: coordinate byte, dimensions, spacing, directions of i, j, k, and the centre, mm.

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "igtlImageMessage.h"
#include "igtlMessageHeader.h"
#include "igtl_client.h"

int main(int argc, char* argv[])
{
  if (argc != 3)
  {
    std::fprintf(stderr, "Usage: %s PORT COUNT\n", argv[0]);
    return 2;
  }
  igtl::ServerSocket::Pointer server = igtl::ServerSocket::New();
  igtl::Socket::Pointer socket = ClientOn(server, std::atoi(argv[1]));
  if (socket.IsNull())
  {
    return 1;
  }
  for (int number = 0; number < std::atoi(argv[2]); ++number)
  {
    igtl::MessageHeader::Pointer header = igtl::MessageHeader::New();
    header->InitPack();
    if (socket->Receive(header->GetPackPointer(), header->GetPackSize()) != header->GetPackSize())
    {
      return 1;
    }
    header->Unpack();
    igtl::ImageMessage::Pointer image = igtl::ImageMessage::New();
    image->SetMessageHeader(header);
    image->AllocatePack();
    socket->Receive(image->GetPackBodyPointer(), image->GetPackBodySize());
    if ((image->Unpack(1) & igtl::MessageHeader::UNPACK_BODY) == 0)
    {
      return 1;
    }
    int size[3];
    float spacing[3], centre[3], t[3], s[3], n[3];
    image->GetDimensions(size);
    image->GetSpacing(spacing);
    image->GetOrigin(centre);
    image->GetNormals(t, s, n);
    std::printf("%d %d %d %d %.9g %.9g %.9g", image->GetCoordinateSystem(), size[0], size[1], size[2], spacing[0],
                spacing[1], spacing[2]);
    for (const float* vector : {t, s, n, centre})
    {
      std::printf(" %.9g %.9g %.9g", vector[0], vector[1], vector[2]);
    }
    std::printf("\n");
    std::fflush(stdout);

    igtl::ImageMessage::Pointer back = igtl::ImageMessage::New();
    back->SetDeviceName("back");
    back->SetDimensions(size);
    back->SetSpacing(spacing);
    back->SetScalarType(image->GetScalarType());
    back->SetEndian(image->GetEndian());
    back->SetCoordinateSystem(image->GetCoordinateSystem());
    back->SetNumComponents(image->GetNumComponents());
    back->SetSubVolume(size[0], size[1], size[2], 0, 0, 0);
    back->AllocateScalars();
    std::memcpy(back->GetScalarPointer(), image->GetScalarPointer(), image->GetImageSize());
    back->SetNormals(t, s, n);
    back->SetOrigin(centre);
    back->Pack();
    socket->Send(back->GetPackPointer(), back->GetPackSize());
  }
  // Whoever hangs up first may take what is still on its way with it.
  igtl::MessageHeader::Pointer header = igtl::MessageHeader::New();
  header->InitPack();
  socket->Receive(header->GetPackPointer(), header->GetPackSize());
  return 0;
}
