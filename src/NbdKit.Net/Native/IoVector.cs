using System.Runtime.InteropServices;

namespace NbdKit.Native;

/// <summary><c>struct iovec</c>: memory that is pinned for as long as the call runs.</summary>
[StructLayout(LayoutKind.Sequential)]
internal readonly struct IoVector(nint address, nint length)
{
    private readonly nint _address = address;
    private readonly nint _length = length;

    /// <summary>How far behind the begin of a page of the system it begins.</summary>
    public int OffsetInPage => (int)(_address & (Environment.SystemPageSize - 1));

    /// <summary>Its first bytes.</summary>
    public IoVector AtMost(int length) => new(_address, Math.Min(_length, length));
}
