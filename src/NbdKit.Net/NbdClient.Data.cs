using NbdKit.Client;
using NbdKit.Protocol;

namespace NbdKit;

// NBD_CMD_READ and NBD_CMD_WRITE.
public sealed partial class NbdClient
{
    /// <summary>Fills a buffer with what the export holds (NBD_CMD_READ).</summary>
    /// <param name="buffer">
    /// The memory to fill, the client's until the task completes. A large one is filled by several requests at a time. After a
    /// failure it holds zeroes.
    /// </param>
    /// <param name="offset">First byte to read, 0 or more.</param>
    /// <param name="cancellationToken">Gives up; the buffer is the caller's again when the task has completed.</param>
    /// <exception cref="ArgumentOutOfRangeException">The offset is negative.</exception>
    /// <exception cref="NbdException">The server, or a check of the client, refused it.</exception>
    /// <exception cref="NbdClientException">The connection has ended, or the time was over.</exception>
    public ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken = default)
    {
        if (CheckRange(offset, buffer.Length, NbdError.InvalidArgument) is { } fault)
        {
            return ValueTask.FromException(fault);
        }
        if (IsNothing(buffer.Length))
        {
            return default;
        }
        return buffer.Length <= _largest || !Checks(NbdStrictness.PayloadSize)
            ? SubmitRead(buffer, offset, CommandFlags.None, null, cancellationToken)
            : ReadPiecesAsync(buffer, offset, cancellationToken);
    }

    /// <summary>As <see cref="ReadAsync"/>, and tells which parts the server sent as holes.</summary>
    /// <param name="buffer">
    /// The memory to fill but for its holes, which are left as they are: filling them would cost more than receiving them.
    /// </param>
    /// <param name="offset">First byte to read, 0 or more.</param>
    /// <param name="chunk">
    /// Called for each part in ascending order, after all have come and before the task completes, on the thread that it completes
    /// on. Not called if the read fails. Without structured replies everything is one part of data.
    /// </param>
    /// <param name="dontFragment">
    /// Whether the server must answer in a single chunk (NBD_CMD_FLAG_DF), for each request that a large buffer is split into. It
    /// fails with <see cref="NbdError.Overflow"/> if that would be too large for it, and with
    /// <see cref="NbdError.InvalidArgument"/> if it does not offer it.
    /// </param>
    /// <param name="cancellationToken">Gives up; the buffer is the caller's again when the task has completed.</param>
    /// <exception cref="ArgumentOutOfRangeException">The offset is negative.</exception>
    /// <exception cref="NbdException">The server, or a check of the client, refused it.</exception>
    /// <exception cref="NbdClientException">The connection has ended, or the time was over.</exception>
    public async ValueTask ReadSparseAsync(
        Memory<byte> buffer,
        long offset,
        Action<NbdReadChunk> chunk,
        bool dontFragment = false,
        CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(chunk);
        NbdException? fault = CheckRange(offset, buffer.Length, NbdError.InvalidArgument);
        if (dontFragment && Checks(NbdStrictness.Flags))
        {
            fault ??= CheckCommand(TransmissionFlags.SendDf, "replies that are not fragmented");
        }
        if (fault is not null)
        {
            throw fault;
        }
        if (IsNothing(buffer.Length))
        {
            return;
        }
        var chunks = new List<NbdReadChunk>();
        CommandFlags flags = dontFragment ? CommandFlags.DontFragment : CommandFlags.None;
        int most = Checks(NbdStrictness.PayloadSize) ? _largest : buffer.Length;
        for (long at = 0; at < Math.Max(1, buffer.Length); at += most)
        {
            Memory<byte> piece = buffer.Slice((int)at, (int)Math.Min(most, buffer.Length - at));
            int known = chunks.Count;
            try
            {
                await SubmitRead(piece, offset + at, flags, chunks, cancellationToken).ConfigureAwait(false);
            }
            catch
            {
                buffer.Span.Clear();
                throw;
            }
            if (chunks.Count == known)
            {
                chunks.Add(new NbdReadChunk(offset + at, piece.Length, IsHole: false));
            }
            if (piece.Length == 0)
            {
                break;
            }
        }
        chunks.Sort(static (a, b) => a.Offset.CompareTo(b.Offset));
        foreach (NbdReadChunk part in chunks)
        {
            chunk(part);
        }
    }

    /// <summary>Writes (NBD_CMD_WRITE).</summary>
    /// <param name="data">
    /// The bytes, which must not change until the task completes. Large ones are sent by several requests at a time, which is not
    /// atomic.
    /// </param>
    /// <param name="offset">First byte to write, 0 or more.</param>
    /// <param name="flags"><see cref="RequestFlags.Fua"/>, or nothing.</param>
    /// <param name="cancellationToken">Gives up; the server may have written, or may still write.</param>
    /// <exception cref="ArgumentOutOfRangeException">The offset is negative.</exception>
    /// <exception cref="NbdException">The server, or a check of the client, refused it.</exception>
    /// <exception cref="NbdClientException">The connection has ended, or the time was over.</exception>
    public ValueTask WriteAsync(
        ReadOnlyMemory<byte> data,
        long offset,
        RequestFlags flags = RequestFlags.None,
        CancellationToken cancellationToken = default)
    {
        if ((CheckWritable() ?? CheckFlags(flags, RequestFlags.Fua) ?? CheckRange(offset, data.Length, NbdError.NoSpace)) is { } fault)
        {
            return ValueTask.FromException(fault);
        }
        if (IsNothing(data.Length))
        {
            return default;
        }
        return data.Length <= _largest || !Checks(NbdStrictness.PayloadSize)
            ? SubmitWrite(data, offset, FuaOf(flags), cancellationToken)
            : WritePiecesAsync(data, offset, FuaOf(flags), cancellationToken);
    }

    private ValueTask SubmitRead(
        Memory<byte> buffer,
        long offset,
        CommandFlags flags,
        List<NbdReadChunk>? chunks,
        CancellationToken cancellationToken)
    {
        PendingCommand command = _transmission.Rent();
        command.Begin(CommandType.Read, flags, offset, buffer.Length, buffer: buffer, chunks: chunks);
        return _transmission.SubmitAsync(command, cancellationToken);
    }

    private ValueTask SubmitWrite(
        ReadOnlyMemory<byte> data, long offset, CommandFlags flags, CancellationToken cancellationToken)
    {
        if (HasExtendedHeaders)
        {
            flags |= CommandFlags.PayloadLength;
        }
        PendingCommand command = _transmission.Rent();
        command.Begin(CommandType.Write, flags, offset, data.Length, data: data);
        return _transmission.SubmitAsync(command, cancellationToken);
    }

    private async ValueTask ReadPiecesAsync(
        Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        var pieces = new List<Task>();
        // 64 bits: the end of the largest array is less than one piece away from 2^31.
        for (long at = 0; at < buffer.Length; at += _largest)
        {
            Memory<byte> piece = buffer.Slice((int)at, (int)Math.Min(_largest, buffer.Length - at));
            pieces.Add(SubmitRead(piece, offset + at, CommandFlags.None, null, cancellationToken).AsTask());
        }
        try
        {
            // All of them, also after a failure: only then is the buffer the caller's again.
            await Task.WhenAll(pieces).ConfigureAwait(false);
        }
        catch
        {
            buffer.Span.Clear();
            throw;
        }
    }

    private async ValueTask WritePiecesAsync(
        ReadOnlyMemory<byte> data, long offset, CommandFlags flags, CancellationToken cancellationToken)
    {
        var pieces = new List<Task>();
        for (long at = 0; at < data.Length; at += _largest)
        {
            ReadOnlyMemory<byte> piece = data.Slice((int)at, (int)Math.Min(_largest, data.Length - at));
            pieces.Add(SubmitWrite(piece, offset + at, flags, cancellationToken).AsTask());
        }
        await Task.WhenAll(pieces).ConfigureAwait(false);
    }
}
