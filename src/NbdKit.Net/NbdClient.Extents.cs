using System.Runtime.CompilerServices;
using NbdKit.Client;
using NbdKit.Protocol;

namespace NbdKit;

// NBD_CMD_BLOCK_STATUS.
public sealed partial class NbdClient
{
    /// <summary>
    /// Adds to a list what a range is made of, in the meta context that the list names. Asks as often as it takes to cover the
    /// range or to fill the list; the last extent may go beyond the range.
    /// </summary>
    /// <param name="offset">First byte: that which the list needs next.</param>
    /// <param name="length">Number of bytes, 0 or more.</param>
    /// <param name="flags">
    /// <see cref="RequestFlags.RequestOne"/>: asks once, for the first extent only, which then ends inside the range.
    /// </param>
    /// <param name="extents">Receives the extents. The client's until the task completes; not touched after a failure.</param>
    /// <param name="cancellationToken">Gives up.</param>
    /// <exception cref="ArgumentOutOfRangeException">The offset or the length is negative.</exception>
    /// <exception cref="ArgumentException">The list needs an earlier byte next.</exception>
    /// <exception cref="NbdException">
    /// The server, or a check of the client, refused it; above all, the meta context was not granted.
    /// </exception>
    /// <exception cref="NbdClientException">The connection has ended, or the time was over.</exception>
    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
    public async ValueTask ExtentsAsync(
        long offset, long length, RequestFlags flags, ExtentList extents, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(extents);
        if (extents.Covered < offset)
        {
            throw new ArgumentException($"The list needs the extent at {extents.Covered} next, not one at {offset}.", nameof(extents));
        }
        if ((CheckFlags(flags, RequestFlags.RequestOne) ?? CheckRange(offset, length, NbdError.InvalidArgument)) is { } fault)
        {
            throw fault;
        }
        uint context = ContextOf(extents.MetaContext);
        if (IsNothing(length))
        {
            return;
        }
        bool one = (flags & RequestFlags.RequestOne) != 0;
        long end = offset + length;
        do
        {
            BlockStatusReply reply = _replies.Get();
            // With a payload the server leaves the other contexts out.
            reply.Begin(HasExtendedHeaders && MetaContexts.Count > 1 && (_flags & TransmissionFlags.BlockStatusPayload) != 0
                ? context
                : null);
            await SubmitStatus(offset, end - offset, one, reply, cancellationToken).ConfigureAwait(false);
            reply.CopyTo(context, offset, Math.Min(_size, extents.End), extents);
            offset = Math.Max(offset, extents.Covered);
            // After a failure it is not given back: the reply may still be on its way.
            _replies.Return(reply);
        }
        while (!one && offset < end && !extents.IsFull);
    }

    /// <summary>
    /// Asks once what a range is made of, in all meta contexts that were granted. The answers may be of different length.
    /// </summary>
    /// <param name="offset">First byte, 0 or more, inside of the export.</param>
    /// <param name="length">Number of bytes, 0 or more; without extended headers at most 2^32-65,536 of them are asked for.</param>
    /// <param name="flags"><see cref="RequestFlags.RequestOne"/>: only the first extent of each context.</param>
    /// <param name="cancellationToken">Gives up.</param>
    /// <returns>
    /// A list for each meta context, by its name: each begins at <paramref name="offset"/>, and may go beyond the range.
    /// </returns>
    /// <exception cref="ArgumentOutOfRangeException">The offset or the length is negative.</exception>
    /// <exception cref="NbdException">The server, or a check of the client, refused it; or no context was granted.</exception>
    /// <exception cref="NbdClientException">The connection has ended, or the time was over.</exception>
    public async ValueTask<IReadOnlyDictionary<string, ExtentList>> ExtentsOfAllContextsAsync(
        long offset, long length, RequestFlags flags = RequestFlags.None, CancellationToken cancellationToken = default)
    {
        if ((CheckFlags(flags, RequestFlags.RequestOne) ?? CheckRange(offset, length, NbdError.InvalidArgument)) is { } fault)
        {
            throw fault;
        }
        if (MetaContexts.Count == 0)
        {
            throw new NbdException(NbdError.InvalidArgument, "The server granted no meta context.");
        }
        var lists = new Dictionary<string, ExtentList>();
        if (IsNothing(length))
        {
            return lists;
        }
        var reply = new BlockStatusReply();
        reply.Begin(null);
        await SubmitStatus(offset, length, (flags & RequestFlags.RequestOne) != 0, reply, cancellationToken)
            .ConfigureAwait(false);
        foreach ((uint context, string name) in _transmission.Session.MetaContexts)
        {
            var extents = new ExtentList(offset, _size, name, _options.MaxExtents);
            reply.CopyTo(context, offset, _size, extents);
            lists.Add(name, extents);
        }
        return lists;
    }

    private uint ContextOf(string name)
    {
        foreach ((uint context, string granted) in _transmission.Session.MetaContexts)
        {
            if (granted == name)
            {
                return context;
            }
        }
        throw new NbdException(NbdError.InvalidArgument, $"The server did not grant the meta context {name}.");
    }

    private ValueTask SubmitStatus(
        long offset, long length, bool one, BlockStatusReply reply, CancellationToken cancellationToken)
    {
        if (!HasExtendedHeaders)
        {
            length = Math.Min(length, LargestRange);
        }
        CommandFlags flags = one ? CommandFlags.RequestOne : CommandFlags.None;
        ReadOnlyMemory<byte> data = default;
        if (reply.Only is { } only)
        {
            flags |= CommandFlags.PayloadLength;
            data = RequestWriter.StatusPayload((ulong)length, only);
        }
        PendingCommand command = _transmission.Rent();
        command.Begin(CommandType.BlockStatus, flags, offset, length, data: data, status: reply);
        return _transmission.SubmitAsync(command, cancellationToken);
    }
}
