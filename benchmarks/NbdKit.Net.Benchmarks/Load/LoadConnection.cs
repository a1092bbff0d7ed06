using System.Buffers.Binary;
using System.Net.Sockets;
using NbdKit.Protocol;

namespace NbdKit.Benchmarks.Load;

/// <summary>
/// One connection with a thread of its own: keeps a fixed number of requests in flight, sends refills in one call, and
/// checks every reply. It allocates nothing once it runs, and looks at no payload: what is measured is the server.
/// </summary>
internal sealed class LoadConnection
{
    // Stays in the cache of the processor: payload is received over and over into the same place.
    private const int LargestReceive = 256 << 10;
    private const int StackBytes = 256 << 10;

    private readonly Socket _socket;
    private readonly Work _work;
    private readonly LoadGate _gate;
    private readonly Thread _thread;
    private readonly int _requestSize;
    private readonly byte[] _requests;
    private readonly byte[] _received;
    private readonly ulong[] _cookies;
    private readonly int[] _free;
    private OffsetSequence _offsets;
    private Exception? _failure;
    private long _remaining;
    private long _finished;
    private ulong _lastNumber;
    private int _freeCount;
    private int _slot;
    private int _payload;
    private int _kept;

    /// <summary>Takes over a connection in transmission.</summary>
    /// <param name="socket">The connection, which is closed at the end.</param>
    /// <param name="size">The size of the disk.</param>
    /// <param name="work">What to do.</param>
    /// <param name="number">Which connection of the work this is.</param>
    /// <param name="requests">How many requests to make, if nobody stops it before.</param>
    /// <param name="gate">When to begin and end.</param>
    public LoadConnection(Socket socket, long size, Work work, int number, long requests, LoadGate gate)
    {
        _socket = socket;
        _work = work;
        _gate = gate;
        _remaining = requests;
        _offsets = new OffsetSequence(work, size, number);
        _requestSize = RequestHeader.Size + (work.Writes ? work.BlockSize : 0);
        _requests = new byte[_requestSize * work.Depth];
        new Random(number).NextBytes(_requests);
        _received = new byte[Math.Min(LargestReceive, work.Depth * (SimpleReply.Size + (work.Writes ? 0 : work.BlockSize)))];
        _cookies = new ulong[work.Depth];
        _free = [.. Enumerable.Range(0, work.Depth)];
        _freeCount = work.Depth;
        _thread = new Thread(Run, StackBytes) { IsBackground = true };
        _thread.Start();
    }

    /// <summary>The requests that were answered so far.</summary>
    public long Finished => Volatile.Read(ref _finished);

    /// <summary>Waits for the last reply.</summary>
    /// <exception cref="InvalidDataException">The server answered wrongly, or not at all.</exception>
    public void Join()
    {
        _thread.Join();
        if (_failure is not null)
        {
            throw new InvalidDataException($"{_work.Name}: {_failure.Message}", _failure);
        }
    }

    private void Run()
    {
        try
        {
            _gate.Opened.Wait();
            while (true)
            {
                LoadHandshake.SendAll(_socket, _requests.AsSpan(0, Refill()));
                if (_freeCount == _work.Depth)
                {
                    break;
                }
                Receive();
            }
            RequestEncoding.Write(_requests, CommandType.Disconnect, 0, 0, 0);
            LoadHandshake.SendAll(_socket, _requests.AsSpan(0, RequestHeader.Size));
        }
        catch (Exception e) when (e is SocketException or IOException or InvalidDataException)
        {
            _failure = e;
        }
        finally
        {
            _socket.Dispose();
        }
    }

    private int Refill()
    {
        int length = 0;
        while (_freeCount > 0 && _remaining > 0 && !_gate.IsStopped)
        {
            int slot = _free[--_freeCount];
            ulong cookie = (++_lastNumber << 16) | (uint)slot;
            _cookies[slot] = cookie;
            RequestEncoding.Write(
                _requests.AsSpan(length),
                _work.Writes ? CommandType.Write : CommandType.Read,
                cookie,
                _offsets.Next(),
                _work.BlockSize);
            length += _requestSize;
            _remaining--;
        }
        return length;
    }

    private void Receive()
    {
        int count = _socket.Receive(_received.AsSpan(_kept));
        if (count == 0)
        {
            throw new EndOfStreamException("The server ended the connection.");
        }
        Span<byte> rest = _received.AsSpan(0, _kept + count);
        while (true)
        {
            if (_payload > 0)
            {
                int skipped = Math.Min(_payload, rest.Length);
                rest = rest[skipped..];
                _payload -= skipped;
                if (_payload > 0)
                {
                    break;
                }
                Finish();
            }
            if (rest.Length < SimpleReply.Size)
            {
                break;
            }
            _slot = Check(rest);
            rest = rest[SimpleReply.Size..];
            if (_work.Writes)
            {
                Finish();
            }
            else
            {
                _payload = _work.BlockSize;
            }
        }
        rest.CopyTo(_received);
        _kept = rest.Length;
    }

    private void Finish()
    {
        _free[_freeCount++] = _slot;
        Volatile.Write(ref _finished, _finished + 1);
    }

    /// <summary>The slot of the request that a reply belongs to.</summary>
    private int Check(ReadOnlySpan<byte> reply)
    {
        uint magic = BinaryPrimitives.ReadUInt32BigEndian(reply);
        uint error = BinaryPrimitives.ReadUInt32BigEndian(reply[4..]);
        ulong cookie = BinaryPrimitives.ReadUInt64BigEndian(reply[8..]);
        int slot = (int)(cookie & 0xffff);
        if (magic != Magic.SimpleReply || error != 0 || slot >= _cookies.Length || _cookies[slot] != cookie || cookie == 0)
        {
            throw new InvalidDataException($"a bad reply: magic {magic:x}, error {error}, cookie {cookie:x}");
        }
        _cookies[slot] = 0;
        return slot;
    }
}
