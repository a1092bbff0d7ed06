using System.Net.Sockets;
using System.Runtime.InteropServices;

namespace NbdKit.Native;

/// <summary>Sockets of the family AF_VSOCK, which .NET does not know: it cannot make, connect or describe one.</summary>
internal static class LinuxVsock
{
    private const int Family = 40;
    private const int Stream = 1;
    private const int CloseOnExec = 0x80000;
    private const int Interrupted = 4;

    // As much as any address has; that of a vsock has 16 bytes.
    private const int MaximumAddress = 128;

    /// <summary>Makes a stream socket.</summary>
    /// <exception cref="SocketException">The system has no vsocks.</exception>
    public static Socket Create()
    {
        nint descriptor = OperatingSystem.IsLinux() ? socket(Family, Stream | CloseOnExec, 0) : -1;
        return descriptor >= 0
            ? new Socket(new SafeSocketHandle(descriptor, ownsHandle: true))
            : throw new SocketException((int)SocketError.AddressFamilyNotSupported);
    }

    /// <summary>Connects on the caller's thread; the kernel gives up after two seconds by itself.</summary>
    /// <exception cref="SocketException">Nobody answered.</exception>
    public static void Connect(Socket client, VsockEndPoint endPoint)
    {
        ReadOnlySpan<byte> address = endPoint.Serialize().Buffer.Span[..VsockEndPoint.AddressLength];
        if (connect(client.SafeHandle, in MemoryMarshal.GetReference(address), address.Length) != 0)
        {
            int error = Marshal.GetLastPInvokeError();
            throw new SocketException((int)(error switch
            {
                Interrupted => SocketError.Interrupted,
                13 => SocketError.AccessDenied,
                19 or 101 => SocketError.NetworkUnreachable,
                104 => SocketError.ConnectionReset,
                110 => SocketError.TimedOut,
                111 => SocketError.ConnectionRefused,
                _ => SocketError.HostUnreachable,
            }));
        }
    }

    /// <summary>The address that a socket is bound to, or null.</summary>
    public static VsockEndPoint? LocalEndPoint(Socket socket)
    {
        Span<byte> address = stackalloc byte[MaximumAddress];
        int length = address.Length;
        return getsockname(socket.SafeHandle, ref MemoryMarshal.GetReference(address), ref length) == 0
            ? VsockEndPoint.TryRead(address[..length])
            : null;
    }

    /// <summary>The address at the other end, or null.</summary>
    public static VsockEndPoint? RemoteEndPoint(Socket socket)
    {
        Span<byte> address = stackalloc byte[MaximumAddress];
        int length = address.Length;
        return getpeername(socket.SafeHandle, ref MemoryMarshal.GetReference(address), ref length) == 0
            ? VsockEndPoint.TryRead(address[..length])
            : null;
    }

    [DllImport("libc", SetLastError = true)]
    private static extern int socket(int family, int type, int protocol);

    [DllImport("libc", SetLastError = true)]
    private static extern int connect(SafeSocketHandle socket, in byte address, int length);

    [DllImport("libc", SetLastError = true)]
    private static extern int getsockname(SafeSocketHandle socket, ref byte address, ref int length);

    [DllImport("libc", SetLastError = true)]
    private static extern int getpeername(SafeSocketHandle socket, ref byte address, ref int length);
}
