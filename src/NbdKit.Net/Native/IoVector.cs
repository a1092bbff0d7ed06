using System.Runtime.InteropServices;

namespace NbdKit.Native;

/// <summary><c>struct iovec</c>: memory that is pinned for as long as the call runs.</summary>
[StructLayout(LayoutKind.Sequential)]
internal readonly struct IoVector(nint address, nint length)
{
    private readonly nint _address = address;
    private readonly nint _length = length;
}
