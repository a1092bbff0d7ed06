using System.Buffers;
using NbdKit.Layers;
using NbdKit.Plugins.Members;
using NbdKit.Plugins.Mirror;

namespace NbdKit.Plugins;

// Bringing a member in sync. It takes every change since before this began; what is copied here is locked against changes
// meanwhile, so that neither overtakes the other.
public sealed partial class MirrorPlugin
{
    private const int Chunk = 1 << 20;

    // Any alignment that a member may want.
    private const int LargestAlignment = 65_536;

    // A range that is known to be zero needs little time, however long it is.
    private const long LargestZero = 1L << 30;

    private void BeginResync(MirrorMember member) => member.Resync = Task.Run(() => ResyncAsync(member));

    private async Task ResyncAsync(MirrorMember target)
    {
        using var linked = CancellationTokenSource.CreateLinkedTokenSource(target.Leaving, _stopping.Token);
        InnerContext? to = null;
        InnerContext? from = null;
        MirrorMember? source = null;
        byte[] buffer = ArrayPool<byte>.Shared.Rent(Chunk);
        try
        {
            to = await OpenAsync(target.Chain, readOnly: false, null, linked.Token).ConfigureAwait(false);
            for (long at = 0; at < _size;)
            {
                if (source is not { State: MirrorMemberState.InSync })
                {
                    if (from is not null)
                    {
                        await from.CloseAsync().ConfigureAwait(false);
                        from = null;
                    }
                    source = Members.First(member => member.State == MirrorMemberState.InSync);
                    from = await OpenSourceAsync(source, linked.Token).ConfigureAwait(false);
                }
                if (from is null)
                {
                    continue;
                }
                long began = TimeProvider.GetTimestamp();
                long end = await CopyAsync(source, from, to, at, buffer, linked.Token).ConfigureAwait(false);
                await SlowDownAsync(end - at, began, linked.Token).ConfigureAwait(false);
                at = end;
                target.Resynced = at;
            }
            if (to.Info.CanFlush)
            {
                await to.Next.FlushAsync(linked.Token).ConfigureAwait(false);
            }
            Complete(target);
        }
        catch (Exception e)
        {
            if (linked.IsCancellationRequested)
            {
                target.GiveUp();
            }
            else
            {
                Drop(target, e);
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
            await InnerContext.CloseAllAsync(new[] { from, to }.OfType<InnerContext>()).ConfigureAwait(false);
        }
    }

    private void Complete(MirrorMember target)
    {
        lock (_lock)
        {
            if (target.State != MirrorMemberState.Resyncing)
            {
                return;
            }
            target.BecomeInSync();
        }
        Report(target);
    }

    /// <summary>Opens a member to copy from. One that fails is dropped, and null comes back, unless it is the last.</summary>
    private async ValueTask<InnerContext?> OpenSourceAsync(MirrorMember source, CancellationToken cancellationToken)
    {
        try
        {
            return await OpenAsync(source.Chain, readOnly: true, null, cancellationToken).ConfigureAwait(false);
        }
        catch (Exception e) when (!cancellationToken.IsCancellationRequested && Drop(source, e))
        {
            return null;
        }
    }

    /// <summary>Copies the next part, and returns where it ends. A source that fails is dropped, unless it is the last.</summary>
    private async ValueTask<long> CopyAsync(
        MirrorMember source, InnerContext from, InnerContext to, long at, byte[] buffer, CancellationToken cancellationToken)
    {
        long length = await NextLengthAsync(from.Next, at, cancellationToken).ConfigureAwait(false);
        using RangeLock.Holder held = await Ranges.EnterAsync(at, at + length, exclusive: true, cancellationToken)
            .ConfigureAwait(false);
        ExtentList extents;
        try
        {
            if (!from.Info.CanMultiConn)
            {
                // What the clients' contexts wrote may not be seen through another one before that.
                await FlushClientsAsync(source, cancellationToken).ConfigureAwait(false);
            }
            extents = new ExtentList(at, at + length);
            await from.Next.ExtentsAlignedAsync(at, length, LargestAlignment, extents, cancellationToken).ConfigureAwait(false);
        }
        catch (Exception e) when (!cancellationToken.IsCancellationRequested && Drop(source, e))
        {
            return at;
        }
        long end = at;
        foreach (Extent extent in extents)
        {
            bool isZero = (extent.Status & ExtentStatus.Zero) != 0;
            // What was zero may be data by now: then not all of a long range is done at once.
            long count = isZero ? extent.Length : Math.Min(extent.Length, at + Chunk - end);
            if (count <= 0)
            {
                break;
            }
            if (isZero && to.Info.CanZero != Support.None)
            {
                await to.Next.ZeroAsync(end, count, RequestFlags.MayTrim, cancellationToken).ConfigureAwait(false);
            }
            else if (!await CopyDataAsync(source, from, to, end, count = Math.Min(count, Chunk), buffer, cancellationToken)
                .ConfigureAwait(false))
            {
                break;
            }
            end += count;
            if (count < extent.Length)
            {
                break;
            }
        }
        if (!to.Info.CanMultiConn && to.Info.CanFlush)
        {
            await to.Next.FlushAsync(cancellationToken).ConfigureAwait(false);
        }
        return end;
    }

    /// <summary>Copies up to a chunk; false if the source failed and was dropped.</summary>
    private async ValueTask<bool> CopyDataAsync(
        MirrorMember source,
        InnerContext from,
        InnerContext to,
        long offset,
        long count,
        byte[] buffer,
        CancellationToken cancellationToken)
    {
        int step = StepOf(from.Info, to.Info);
        for (int done = 0; done < count;)
        {
            Memory<byte> part = buffer.AsMemory(0, (int)Math.Min(count - done, step));
            try
            {
                await from.Next.ReadAsync(part, offset + done, cancellationToken).ConfigureAwait(false);
            }
            catch (Exception e) when (!cancellationToken.IsCancellationRequested && Drop(source, e))
            {
                return false;
            }
            await to.Next.WriteAsync(part, offset + done, RequestFlags.None, cancellationToken).ConfigureAwait(false);
            done += part.Length;
        }
        return true;
    }

    private async ValueTask<long> NextLengthAsync(NextContext from, long at, CancellationToken cancellationToken)
    {
        long left = _size - at;
        if (left > Chunk && from.Info.CanExtents)
        {
            var hint = new ExtentList(at, _size, maximumCount: 1);
            try
            {
                await from.ExtentsAsync(at, left, RequestFlags.RequestOne, hint, cancellationToken).ConfigureAwait(false);
            }
            catch (Exception) when (!cancellationToken.IsCancellationRequested)
            {
                return Chunk;
            }
            if ((hint[0].Status & ExtentStatus.Zero) != 0 && hint[0].Length > Chunk)
            {
                long zero = Math.Min(hint[0].Length, LargestZero);
                return zero == left ? zero : zero - (zero % LargestAlignment);
            }
        }
        return Math.Min(left, Chunk);
    }

    private async ValueTask FlushClientsAsync(MirrorMember source, CancellationToken cancellationToken)
    {
        foreach (MirrorDisk disk in Disks())
        {
            if (disk.Leg(source) is { Next.Info: { CanWrite: true, CanFlush: true } } leg)
            {
                try
                {
                    await leg.Next.FlushAsync(cancellationToken).ConfigureAwait(false);
                }
                catch (InvalidOperationException) when (!Disks().Contains(disk))
                {
                    // It is closing, and has flushed or lost what it had.
                }
            }
        }
    }

    private async ValueTask SlowDownAsync(long done, long began, CancellationToken cancellationToken)
    {
        long rate = ResyncRate;
        if (rate > 0 && done > 0)
        {
            TimeSpan due = TimeSpan.FromSeconds(Math.Min((double)done / rate, 3600));
            TimeSpan left = due - TimeProvider.GetElapsedTime(began);
            if (left > TimeSpan.Zero)
            {
                await Task.Delay(left, TimeProvider, cancellationToken).ConfigureAwait(false);
            }
        }
    }

    private static int StepOf(NbdExportInfo from, NbdExportInfo to)
    {
        long step = Chunk;
        foreach (long maximum in new[] { from.BlockSize.Maximum, to.BlockSize.Maximum })
        {
            step = maximum > 0 ? Math.Min(step, maximum) : step;
        }
        return (int)(step - (step % CombinedInfo.MinimumBlock([from, to])));
    }
}
