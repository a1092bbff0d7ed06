using System.Net.Sockets;
using System.Runtime.InteropServices;

namespace NbdKit.Native;

/// <summary>
/// Plain system calls on a socket. The runtime's own would hide how much of a send was done before its time limit, and put
/// the socket into an event loop.
/// </summary>
internal static class LinuxSocket
{
    private const int Interrupted = 4;
    private const int WouldBlock = 11;
    private const int DontWait = 0x40;
    private const int NoSignal = 0x4000;
    private const int GetFlags = 3;
    private const int SetFlags = 4;
    private const int NonBlocking = 0x800;

    /// <summary>Makes calls wait, whatever was done with the socket before.</summary>
    public static void MakeBlocking(SafeSocketHandle socket)
    {
        int flags = fcntl(socket, GetFlags, 0);
        if (flags >= 0 && (flags & NonBlocking) != 0)
        {
            _ = fcntl(socket, SetFlags, flags & ~NonBlocking);
        }
    }

    /// <summary>Receives, waiting as long as the socket's time limit or not at all; -1 if nothing came.</summary>
    /// <exception cref="SocketException">The connection failed.</exception>
    public static int Receive(SafeSocketHandle socket, Span<byte> buffer, bool wait)
    {
        while (true)
        {
            nint received = recv(socket, ref MemoryMarshal.GetReference(buffer), buffer.Length, wait ? 0 : DontWait);
            if (received >= 0)
            {
                return (int)received;
            }
            int error = Marshal.GetLastPInvokeError();
            if (error == WouldBlock)
            {
                return -1;
            }
            if (error != Interrupted)
            {
                throw new SocketException((int)ErrorFor(error));
            }
        }
    }

    /// <summary>Sends what can be sent without waiting; -1 if nothing can.</summary>
    /// <exception cref="SocketException">The connection failed.</exception>
    public static int Send(SafeSocketHandle socket, ReadOnlySpan<byte> bytes)
    {
        while (true)
        {
            nint sent = send(socket, ref MemoryMarshal.GetReference(bytes), bytes.Length, DontWait | NoSignal);
            if (sent >= 0)
            {
                return (int)sent;
            }
            int error = Marshal.GetLastPInvokeError();
            if (error == WouldBlock)
            {
                return -1;
            }
            if (error != Interrupted)
            {
                throw new SocketException((int)ErrorFor(error));
            }
        }
    }

    private static SocketError ErrorFor(int errno) => errno switch
    {
        32 => SocketError.Shutdown,
        104 => SocketError.ConnectionReset,
        110 => SocketError.TimedOut,
        _ => SocketError.SocketError,
    };

    [DllImport("libc", SetLastError = true)]
    private static extern nint recv(SafeSocketHandle socket, ref byte buffer, nint length, int flags);

    [DllImport("libc", SetLastError = true)]
    private static extern nint send(SafeSocketHandle socket, ref byte buffer, nint length, int flags);

    [DllImport("libc", SetLastError = true)]
    private static extern int fcntl(SafeSocketHandle socket, int command, int argument);
}
