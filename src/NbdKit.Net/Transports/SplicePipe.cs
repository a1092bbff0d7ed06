using System.Net.Sockets;
using NbdKit.Buffers;
using NbdKit.Native;

namespace NbdKit.Transports;

/// <summary>A pipe on the way of lent memory to a socket: it holds references to pages, never bytes.</summary>
internal sealed class SplicePipe(int input, int output)
{
    private int _held;

    /// <summary>Whether it holds nothing, and can be used for another send.</summary>
    public bool IsEmpty => _held == 0;

    /// <summary>
    /// Sends lent memory from a position on, which continues where the last call ended, waiting as long as the socket's time
    /// limit; -1 if nothing could be sent.
    /// </summary>
    /// <exception cref="SocketException">The connection failed.</exception>
    public int Send(SafeSocketHandle socket, Loan loan, int position)
    {
        if (_held == 0)
        {
            _held = LinuxSplice.Fill(input, loan, position);
            if (_held <= 0)
            {
                _held = 0;
                throw new SocketException((int)SocketError.NoBufferSpaceAvailable);
            }
        }
        int sent = LinuxSplice.Send(socket, output, _held);
        _held -= Math.Max(0, sent);
        return sent;
    }

    public void Close() => LinuxSplice.ClosePipe(input, output);
}
