using System.Runtime.CompilerServices;
using NbdKit.Client.Pool;
using NbdKit.Protocol;

namespace NbdKit;

// Requests: each on the next connection in turn.
public sealed partial class NbdClientPool
{
    /// <inheritdoc cref="NbdClient.ReadAsync"/>
    public ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken = default)
        => _policy is null
            ? Pick().Client.ReadAsync(buffer, offset, cancellationToken)
            : RunAsync(new PoolRequest(CommandType.Read, offset, buffer.Length, Buffer: buffer), cancellationToken);

    /// <summary>Reads, and tells which parts the server sent as holes.</summary>
    /// <param name="buffer">The memory to fill but for its holes, which are left as they are.</param>
    /// <param name="offset">First byte to read, 0 or more.</param>
    /// <param name="extents">An empty list whose window is the range; what is zero in it afterwards is a hole.</param>
    /// <param name="cancellationToken">Gives up; the buffer is the caller's again when the task has completed.</param>
    /// <exception cref="ArgumentOutOfRangeException">The offset is negative.</exception>
    /// <exception cref="NbdException">The server, or a check of the client, refused it.</exception>
    /// <exception cref="NbdClientException">The connection has ended, or the time was over.</exception>
    public ValueTask ReadSparseAsync(
        Memory<byte> buffer, long offset, ExtentList extents, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(extents);
        return RunAsync(
            new PoolRequest(CommandType.Read, offset, buffer.Length, Buffer: buffer, Extents: extents), cancellationToken);
    }

    /// <summary>Whether reads may be answered with holes.</summary>
    internal bool HasStructuredReplies => Pick().Client.HasStructuredReplies;

    /// <inheritdoc cref="NbdClient.WriteAsync"/>
    public ValueTask WriteAsync(
        ReadOnlyMemory<byte> data,
        long offset,
        RequestFlags flags = RequestFlags.None,
        CancellationToken cancellationToken = default)
        => RunAsync(new PoolRequest(CommandType.Write, offset, data.Length, flags, Data: data), cancellationToken);

    /// <summary>
    /// Waits for every write, trim and zero that was begun before, then brings them to stable storage (NBD_CMD_FLUSH).
    /// </summary>
    /// <param name="cancellationToken">Gives up.</param>
    /// <exception cref="NbdException">The server, or a check of the client, refused it.</exception>
    /// <exception cref="NbdClientException">
    /// The connection has ended, or the time was over; or a connection was lost and with it perhaps changes that had been
    /// acknowledged (see <see cref="NbdReconnectPolicy"/>).
    /// </exception>
    public ValueTask FlushAsync(CancellationToken cancellationToken = default)
        => RunAsync(new PoolRequest(CommandType.Flush, 0, 0), cancellationToken);

    /// <inheritdoc cref="NbdClient.TrimAsync"/>
    public ValueTask TrimAsync(
        long offset, long length, RequestFlags flags = RequestFlags.None, CancellationToken cancellationToken = default)
        => RunAsync(new PoolRequest(CommandType.Trim, offset, length, flags), cancellationToken);

    /// <inheritdoc cref="NbdClient.ZeroAsync"/>
    public ValueTask ZeroAsync(
        long offset, long length, RequestFlags flags = RequestFlags.None, CancellationToken cancellationToken = default)
        => RunAsync(new PoolRequest(CommandType.WriteZeroes, offset, length, flags), cancellationToken);

    /// <inheritdoc cref="NbdClient.CacheAsync"/>
    public ValueTask CacheAsync(long offset, long length, CancellationToken cancellationToken = default)
        => RunAsync(new PoolRequest(CommandType.Cache, offset, length), cancellationToken);

    /// <inheritdoc cref="NbdClient.ExtentsAsync"/>
    public ValueTask ExtentsAsync(
        long offset, long length, RequestFlags flags, ExtentList extents, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(extents);
        return RunAsync(
            new PoolRequest(CommandType.BlockStatus, offset, length, flags, Extents: extents), cancellationToken);
    }

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
    private async ValueTask RunAsync(PoolRequest request, CancellationToken cancellationToken)
    {
        ChangeLog.Batch? batch = request.IsChange ? _changes.Begin() : null;
        bool needsFlush = false;
        try
        {
            for (int attempt = 0; ; attempt++)
            {
                PoolMember member = Pick();
                NbdClient client = member.Client;
                try
                {
                    await SendAsync(client, request, cancellationToken).ConfigureAwait(false);
                    needsFlush = (request.Flags & RequestFlags.Fua) == 0;
                    return;
                }
                catch (Exception e) when (attempt < (_policy?.Attempts ?? 0) && !client.IsConnected && MayRepeat(request, e))
                {
                    await member.ReviveAsync(client, cancellationToken).ConfigureAwait(false);
                }
            }
        }
        finally
        {
            if (batch is not null)
            {
                _changes.End(batch, needsFlush);
            }
        }
    }

    private async ValueTask SendAsync(NbdClient client, PoolRequest request, CancellationToken cancellationToken)
    {
        if (request.Type != CommandType.Flush)
        {
            await request.SendAsync(client, cancellationToken).ConfigureAwait(false);
            return;
        }
        long covered = await _changes.SettleAsync(cancellationToken).ConfigureAwait(false);
        ThrowIfLost();
        await request.SendAsync(client, cancellationToken).ConfigureAwait(false);
        // Lost while the flush was on its way: the answer may be that of a server that never had the changes.
        ThrowIfLost();
        _changes.Flushed(covered);
    }

    private void ThrowIfLost()
    {
        if (_changes.TakeLoss())
        {
            throw new NbdClientException(
                NbdClientError.ConnectionLost,
                "A connection was lost after changes were acknowledged that had not been flushed: they may be lost too.")
            {
                IsOutcomeUnknown = true,
            };
        }
    }

    private bool MayRepeat(in PoolRequest request, Exception failure) => failure switch
    {
        // The server refuses everything because it is stopping.
        NbdException e => e.Error == NbdError.Shutdown,
        NbdClientException e => !e.IsOutcomeUnknown || (request.IsChange && _policy!.ReplayChanges),
        _ => false,
    };

    private PoolMember Pick()
    {
        uint first = Interlocked.Increment(ref _next);
        for (uint i = 0; i < (uint)_members.Length; i++)
        {
            PoolMember member = _members[(first + i) % (uint)_members.Length];
            if (_policy is null ? member.Client.IsConnected : !member.IsGivenUp)
            {
                return member;
            }
        }
        return _members[first % (uint)_members.Length];
    }
}
