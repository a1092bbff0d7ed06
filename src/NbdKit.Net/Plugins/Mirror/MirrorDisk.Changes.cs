using System.Runtime.CompilerServices;
using NbdKit.Layers;

namespace NbdKit.Plugins.Mirror;

// Requests that go to all members. Those that overlap, from whatever client, come to all members in the same order, so that
// members cannot differ. The token of a request is not passed on: one that a client gave up in the middle would have been
// carried out on some members only.
internal sealed partial class MirrorDisk
{
    public ValueTask WriteAsync(
        ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
        => ChangeAsync(LayerCall.Write(data, offset, flags), offset, data.Length, cancellationToken);

    public ValueTask TrimAsync(long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => ChangeAsync(LayerCall.Trim(offset, length, flags), offset, length, cancellationToken);

    public ValueTask ZeroAsync(long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => (flags & RequestFlags.FastZero) == 0
            ? ChangeAsync(LayerCall.Zero(offset, length, flags), offset, length, cancellationToken)
            : ZeroFastAsync(offset, length, flags, cancellationToken);

    public async ValueTask FlushAsync(CancellationToken cancellationToken)
    {
        MirrorLeg[] legs = Volatile.Read(ref _legs);
        MirrorOutcome[] outcomes = new MirrorOutcome[legs.Length];
        await SpreadAsync(LayerCall.Flush(), legs, outcomes).ConfigureAwait(false);
        _mirror.Settle(legs, outcomes);
    }

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
    private async ValueTask ChangeAsync(LayerCall call, long offset, long length, CancellationToken cancellationToken)
    {
        RangeLock.Holder held = await _mirror.Ranges
            .EnterAsync(offset, offset + length, exclusive: true, cancellationToken).ConfigureAwait(false);
        try
        {
            // Read under the lock: a resync that copies this range later finds a change that missed its member.
            MirrorLeg[] legs = Volatile.Read(ref _legs);
            var outcomes = new MirrorOutcome[legs.Length];
            await SpreadAsync(call, legs, outcomes).ConfigureAwait(false);
            _mirror.Settle(legs, outcomes);
        }
        finally
        {
            _mirror.Ranges.Exit(held);
        }
    }

    private async ValueTask ZeroFastAsync(
        long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
    {
        RangeLock.Holder held = await _mirror.Ranges
            .EnterAsync(offset, offset + length, exclusive: true, cancellationToken).ConfigureAwait(false);
        try
        {
            MirrorLeg[] legs = Volatile.Read(ref _legs);
            var outcomes = new MirrorOutcome[legs.Length];
            await SpreadAsync(LayerCall.Zero(offset, length, flags), legs, outcomes).ConfigureAwait(false);
            if (outcomes.All(outcome => !outcome.TookPart || outcome.IsSlow))
            {
                throw new NbdException(NbdError.NotSupported, "no member of the mirror zeroes this quickly");
            }
            if (outcomes.Any(outcome => outcome.IsSlow))
            {
                // Some have done it: the others follow, at whatever cost.
                LayerCall slow = LayerCall.Zero(offset, length, flags & ~RequestFlags.FastZero);
                for (int i = 0; i < legs.Length; i++)
                {
                    if (outcomes[i].IsSlow)
                    {
                        outcomes[i].Failure = null;
                        outcomes[i].Failure = await FailureOf(Begin(slow, legs[i])).ConfigureAwait(false);
                    }
                }
            }
            _mirror.Settle(legs, outcomes);
        }
        finally
        {
            _mirror.Ranges.Exit(held);
        }
    }

    /// <summary>Makes a call on every active member at once, and waits for all of them.</summary>
    private static async ValueTask SpreadAsync(LayerCall call, MirrorLeg[] legs, MirrorOutcome[] outcomes)
    {
        var pending = new ValueTask[legs.Length];
        for (int i = 0; i < legs.Length; i++)
        {
            if (legs[i].Member.IsActive)
            {
                outcomes[i].TookPart = true;
                pending[i] = Begin(call, legs[i]);
            }
        }
        for (int i = 0; i < legs.Length; i++)
        {
            if (!pending[i].IsCompletedSuccessfully)
            {
                outcomes[i].Failure = await FailureOf(pending[i]).ConfigureAwait(false);
            }
            else
            {
                pending[i].GetAwaiter().GetResult();
            }
        }
    }

    private static ValueTask Begin(LayerCall call, MirrorLeg leg)
    {
        if (leg.Next.Info.IsBlocking)
        {
            return new(Task.Run(async () => await call.Invoke(leg.Next, CancellationToken.None).ConfigureAwait(false)));
        }
        try
        {
            return call.Invoke(leg.Next, CancellationToken.None);
        }
        catch (Exception e)
        {
            return ValueTask.FromException(e);
        }
    }

    private static async ValueTask<Exception?> FailureOf(ValueTask pending)
    {
        try
        {
            await pending.ConfigureAwait(false);
            return null;
        }
        catch (Exception e)
        {
            return e;
        }
    }
}
