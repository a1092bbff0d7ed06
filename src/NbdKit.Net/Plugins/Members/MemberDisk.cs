using NbdKit.Layers;

namespace NbdKit.Plugins.Members;

/// <summary>
/// One context of a disk whose bytes are spread over members. A request that lies on one member is passed on as it is; any
/// other is split, and its members work in parallel.
/// </summary>
internal sealed partial class MemberDisk : IChainHandle
{
    private readonly InnerContext[] _members;
    private readonly NextContext[] _next;
    private readonly MemberLayout _layout;
    private readonly NbdExportInfo _info;

    public MemberDisk(InnerContext[] members, MemberLayout layout, NbdExportInfo info)
    {
        _members = members;
        _next = [.. members.Select(member => member.Next)];
        _layout = layout;
        _info = info;
        foreach (NextContext next in _next)
        {
            // The layer above sees to it that no call is in flight at the end.
            next.CountsCalls = false;
        }
    }

    public ValueTask<NbdExportInfo> GetInfoAsync(CancellationToken cancellationToken) => new(_info);

    public ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        MemberPiece piece = _layout.Locate(offset);
        return buffer.Length <= piece.Length
            ? _next[piece.Member].ReadAsync(buffer, piece.Offset, cancellationToken)
            : ReadAcross(buffer, offset, cancellationToken);
    }

    public ValueTask WriteAsync(
        ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
    {
        MemberPiece piece = _layout.Locate(offset);
        return data.Length <= piece.Length
            ? _next[piece.Member].WriteAsync(data, piece.Offset, flags, cancellationToken)
            : WriteAcross(data, offset, flags, cancellationToken);
    }

    public ValueTask FlushAsync(CancellationToken cancellationToken)
        => AllAsync(next => next.Info.CanFlush ? next.FlushAsync(cancellationToken) : default);

    public ValueTask TrimAsync(long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => EachAsync(offset, length, (member, from, count) =>
            LayerCall.Trim(from, count, flags).Invoke(_next[member], cancellationToken));

    public ValueTask ZeroAsync(long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
    {
        MemberPiece piece = _layout.Locate(offset);
        return length > piece.Length && (flags & RequestFlags.FastZero) != 0
            ? ZeroFastAsync(piece.Member, offset, length, flags, cancellationToken)
            : EachAsync(offset, length, (member, from, count) => Zero(member, from, count, flags, cancellationToken));
    }

    public ValueTask CacheAsync(long offset, long length, CancellationToken cancellationToken)
        => EachAsync(offset, length, (member, from, count) =>
            LayerCall.Cache(from, count).Invoke(_next[member], cancellationToken));

    public ValueTask FinalizeAsync(CancellationToken quick) => FinalizeAllAsync(quick);

    public ValueTask CloseAsync() => InnerContext.CloseAllAsync(_members);

    private ValueTask Zero(int member, long from, long count, RequestFlags flags, CancellationToken cancellationToken)
        => LayerCall.Zero(from, count, flags).Invoke(_next[member], cancellationToken);

    /// <summary>
    /// A fast zero over several members: as long as none has done anything it may be declined; after that it is finished,
    /// if need be slowly, so that a declined one has no effect.
    /// </summary>
    private async ValueTask ZeroFastAsync(
        int first, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
    {
        long start = _layout.Before(first, offset);
        await Zero(first, start, _layout.Before(first, offset + length) - start, flags, cancellationToken)
            .ConfigureAwait(false);
        await EachAsync(offset, length, async (member, from, count) =>
        {
            if (member == first)
            {
                return;
            }
            try
            {
                await Zero(member, from, count, flags, cancellationToken).ConfigureAwait(false);
            }
            catch (Exception e) when (e is NotSupportedException or NbdException { Error: NbdError.NotSupported })
            {
                await Zero(member, from, count, flags & ~RequestFlags.FastZero, cancellationToken).ConfigureAwait(false);
            }
        }).ConfigureAwait(false);
    }

    // Apart from the callers, which allocate nothing for requests that lie on one member.
    private ValueTask ReadAcross(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
        => EachAsync(offset, buffer.Length, (member, _, _) => ReadPiecesAsync(member, buffer, offset, cancellationToken));

    private ValueTask WriteAcross(
        ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
        => EachAsync(
            offset, data.Length, (member, _, _) => WritePiecesAsync(member, data, offset, flags, cancellationToken));

    private async ValueTask ReadPiecesAsync(
        int member, Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        for (int at = 0; at < buffer.Length;)
        {
            MemberPiece piece = _layout.Locate(offset + at);
            int count = (int)Math.Min(buffer.Length - at, piece.Length);
            if (piece.Member == member)
            {
                await _next[member].ReadAsync(buffer.Slice(at, count), piece.Offset, cancellationToken).ConfigureAwait(false);
            }
            at += count;
        }
    }

    private async ValueTask WritePiecesAsync(
        int member, ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
    {
        for (int at = 0; at < data.Length;)
        {
            MemberPiece piece = _layout.Locate(offset + at);
            int count = (int)Math.Min(data.Length - at, piece.Length);
            if (piece.Member == member)
            {
                await _next[member].WriteAsync(data.Slice(at, count), piece.Offset, flags, cancellationToken)
                    .ConfigureAwait(false);
            }
            at += count;
        }
    }
}
