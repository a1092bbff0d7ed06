using NbdKit.Client;
using NbdKit.Protocol;

namespace NbdKit;

// The commands that carry no data.
public sealed partial class NbdClient
{
    // What a request of 32 bits can name, as a multiple of every block size.
    private const long LargestRange = uint.MaxValue & ~0xffffL;

    /// <summary>
    /// Brings everything that was written, trimmed or zeroed before to stable storage (NBD_CMD_FLUSH): all whose tasks have
    /// completed, on this connection, or on any of the export if it is multi-conn.
    /// </summary>
    /// <param name="cancellationToken">Gives up.</param>
    /// <exception cref="NbdException">The server, or a check of the client, refused it.</exception>
    /// <exception cref="NbdClientException">The connection has ended, or the time was over.</exception>
    public ValueTask FlushAsync(CancellationToken cancellationToken = default)
        => CheckCommand(TransmissionFlags.SendFlush, "flushes") is { } fault
            ? ValueTask.FromException(fault)
            : Submit(CommandType.Flush, CommandFlags.None, 0, 0, cancellationToken);

    /// <summary>Gives up the content of a range; what it reads afterwards is undefined (NBD_CMD_TRIM).</summary>
    /// <param name="offset">First byte, 0 or more.</param>
    /// <param name="length">Number of bytes. Without extended headers more than 2^32-65,536 take several requests.</param>
    /// <param name="flags"><see cref="RequestFlags.Fua"/>, or nothing.</param>
    /// <param name="cancellationToken">Gives up; the server may have trimmed, or may still do it.</param>
    /// <exception cref="ArgumentOutOfRangeException">The offset or the length is negative.</exception>
    /// <exception cref="NbdException">The server, or a check of the client, refused it.</exception>
    /// <exception cref="NbdClientException">The connection has ended, or the time was over.</exception>
    public ValueTask TrimAsync(
        long offset, long length, RequestFlags flags = RequestFlags.None, CancellationToken cancellationToken = default)
    {
        NbdException? fault = CheckWritable()
            ?? CheckCommand(TransmissionFlags.SendTrim, "trims")
            ?? CheckFlags(flags, RequestFlags.Fua)
            ?? CheckRange(offset, length, NbdError.NoSpace);
        return fault is null
            ? SubmitRange(CommandType.Trim, FuaOf(flags), offset, length, cancellationToken)
            : ValueTask.FromException(fault);
    }

    /// <summary>Makes a range read as zeroes (NBD_CMD_WRITE_ZEROES).</summary>
    /// <param name="offset">First byte, 0 or more.</param>
    /// <param name="length">Number of bytes. Without extended headers more than 2^32-65,536 take several requests.</param>
    /// <param name="flags">
    /// <see cref="RequestFlags.MayTrim"/>: without it the space must stay allocated (NBD_CMD_FLAG_NO_HOLE).
    /// <see cref="RequestFlags.FastZero"/> and <see cref="RequestFlags.Fua"/>, if the server offers them.
    /// </param>
    /// <param name="cancellationToken">Gives up; the server may have zeroed, or may still do it.</param>
    /// <exception cref="ArgumentOutOfRangeException">The offset or the length is negative.</exception>
    /// <exception cref="NbdException">
    /// The server, or a check of the client, refused it; with <see cref="NbdError.NotSupported"/> if a fast zero would not be fast.
    /// </exception>
    /// <exception cref="NbdClientException">The connection has ended, or the time was over.</exception>
    public ValueTask ZeroAsync(
        long offset, long length, RequestFlags flags = RequestFlags.None, CancellationToken cancellationToken = default)
    {
        NbdException? fault = CheckWritable()
            ?? CheckCommand(TransmissionFlags.SendWriteZeroes, "zeroes")
            ?? CheckFlags(flags, RequestFlags.Fua | RequestFlags.MayTrim | RequestFlags.FastZero)
            ?? CheckRange(offset, length, NbdError.NoSpace);
        if (fault is not null)
        {
            return ValueTask.FromException(fault);
        }
        CommandFlags sent = FuaOf(flags);
        if ((flags & RequestFlags.MayTrim) == 0)
        {
            sent |= CommandFlags.NoHole;
        }
        if ((flags & RequestFlags.FastZero) != 0)
        {
            sent |= CommandFlags.FastZero;
        }
        return SubmitRange(CommandType.WriteZeroes, sent, offset, length, cancellationToken);
    }

    /// <summary>Tells the server that a range will be read soon (NBD_CMD_CACHE).</summary>
    /// <param name="offset">First byte, 0 or more.</param>
    /// <param name="length">Number of bytes. Without extended headers more than 2^32-65,536 take several requests.</param>
    /// <param name="cancellationToken">Gives up.</param>
    /// <exception cref="ArgumentOutOfRangeException">The offset or the length is negative.</exception>
    /// <exception cref="NbdException">The server, or a check of the client, refused it.</exception>
    /// <exception cref="NbdClientException">The connection has ended, or the time was over.</exception>
    public ValueTask CacheAsync(long offset, long length, CancellationToken cancellationToken = default)
    {
        NbdException? fault = CheckCommand(TransmissionFlags.SendCache, "prefetching")
            ?? CheckRange(offset, length, NbdError.InvalidArgument);
        return fault is null
            ? SubmitRange(CommandType.Cache, CommandFlags.None, offset, length, cancellationToken)
            : ValueTask.FromException(fault);
    }

    private ValueTask SubmitRange(
        CommandType type, CommandFlags flags, long offset, long length, CancellationToken cancellationToken)
    {
        if (IsNothing(length))
        {
            return default;
        }
        return length <= LargestRange || HasExtendedHeaders
            ? Submit(type, flags, offset, length, cancellationToken)
            : SubmitPiecesAsync(type, flags, offset, length, cancellationToken);
    }

    private ValueTask Submit(
        CommandType type, CommandFlags flags, long offset, long length, CancellationToken cancellationToken)
    {
        PendingCommand command = _transmission.Rent();
        command.Begin(type, flags, offset, length);
        return _transmission.SubmitAsync(command, cancellationToken);
    }

    private async ValueTask SubmitPiecesAsync(
        CommandType type, CommandFlags flags, long offset, long length, CancellationToken cancellationToken)
    {
        while (length > 0)
        {
            long piece = Math.Min(length, LargestRange);
            await Submit(type, flags, offset, piece, cancellationToken).ConfigureAwait(false);
            offset += piece;
            length -= piece;
        }
    }
}
