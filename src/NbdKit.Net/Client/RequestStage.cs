using NbdKit.Buffers;
using NbdKit.Protocol;

namespace NbdKit.Client;

/// <summary>
/// What is to be sent, in order: requests are gathered in memory of its own, with small payloads behind them; large payloads stay
/// where the caller has them. Guarded by the lock of <see cref="ClientTransmission"/>.
/// </summary>
internal sealed class RequestStage(SlabPool pool, bool extended)
{
    // Larger payloads are worth a system call of their own.
    private const int LargestCopy = 16 << 10;

    private readonly Queue<Piece> _pieces = new();
    private Slab? _slab;
    private int _from;
    private int _to;

    public bool IsEmpty => _pieces.Count == 0 && _from == _to;

    /// <summary>Puts a request at the end; its memory is touched until it is sent, if it is not copied.</summary>
    public void Add(PendingCommand command)
    {
        int header = RequestWriter.SizeOf(extended);
        bool copy = command.Data.Length <= LargestCopy;
        int size = header + (copy ? command.Data.Length : 0);
        Span<byte> bytes = Reserve(size);
        // The length of a request with a payload is that of the payload; for a write both are the same.
        bool hasPayload = command.Data.Length > 0;
        RequestWriter.Write(
            bytes,
            extended,
            command.Flags,
            command.Type,
            command.Cookie,
            (ulong)command.Offset,
            hasPayload ? (ulong)command.Data.Length : (ulong)command.Length);
        if (copy)
        {
            command.Data.Span.CopyTo(bytes[header..]);
        }
        _to += size;
        if (!copy)
        {
            Publish();
            command.IsTouched = true;
            _pieces.Enqueue(new Piece(command.Data, null, command));
        }
    }

    /// <summary>Puts NBD_CMD_DISC at the end.</summary>
    public void AddDisconnect()
    {
        int size = RequestWriter.SizeOf(extended);
        RequestWriter.Write(Reserve(size), extended, CommandFlags.None, CommandType.Disconnect, 0, 0, 0);
        _to += size;
    }

    /// <summary>Takes what is to be sent next.</summary>
    public bool TryTake(out Piece piece)
    {
        if (_pieces.Count == 0)
        {
            Publish();
        }
        return _pieces.TryDequeue(out piece);
    }

    /// <summary>Gives all memory back; the payloads that were never sent are the caller's again.</summary>
    public void Close(List<PendingCommand> unsent)
    {
        while (_pieces.TryDequeue(out Piece piece))
        {
            piece.Slab?.Release();
            if (piece.Command is { } command)
            {
                unsent.Add(command);
            }
        }
        _slab?.Release();
        _slab = null;
        _from = _to = 0;
    }

    private Span<byte> Reserve(int size)
    {
        if (_from == _to && _slab is { IsSole: true })
        {
            // All of it is sent: the same memory again, which the processor still has at hand.
            _from = _to = 0;
        }
        if (_slab is null || Slab.Size - _to < size)
        {
            Publish();
            _slab?.Release();
            _slab = pool.Rent();
            _from = _to = 0;
        }
        return _slab.Memory.Span.Slice(_to, size);
    }

    private void Publish()
    {
        if (_to > _from)
        {
            _slab!.Hold();
            _pieces.Enqueue(new Piece(_slab.Memory[_from.._to], _slab, null));
            _from = _to;
        }
    }

    /// <summary>Bytes to send in one call.</summary>
    /// <param name="Bytes">The bytes.</param>
    /// <param name="Slab">What they lie in, held for this piece; or null.</param>
    /// <param name="Command">The request whose payload they are, or null.</param>
    internal readonly record struct Piece(ReadOnlyMemory<byte> Bytes, Slab? Slab, PendingCommand? Command);
}
