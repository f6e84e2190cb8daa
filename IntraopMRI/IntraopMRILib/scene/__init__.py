"""The only room of this library that imports slicer, vtk or qt."""
