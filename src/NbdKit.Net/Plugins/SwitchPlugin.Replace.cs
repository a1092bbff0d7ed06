using NbdKit.Layers;

namespace NbdKit.Plugins;

// Replacing the chain: all or nothing, over all contexts at once.
public sealed partial class SwitchPlugin
{
    /// <summary>Replaces the chain under its clients.</summary>
    /// <remarks>
    /// <para>
    /// Requests and opens that come from now on wait; requests in flight finish, and what they wrote is flushed to the old
    /// chain. Then the new chain is opened for each open context, with the same export name, the same read-only flag and the
    /// same connection, and is checked: it must be at least as large, and offer everything that the client was told of. If
    /// all of them pass, what waits goes on upon the new chain; the size and all else that clients were told stays. The
    /// contexts of the old chain are finalized and closed, and it ends unless somebody else uses it.
    /// </para>
    /// <para>
    /// If anything fails on the way, everything goes on upon the old chain as if nothing had happened, and this throws. No
    /// request fails or is lost in either case. Whether both chains have the same content is the caller's business. One
    /// replacement runs at a time, others wait. A layer must not wait for it inside a request that goes through this
    /// plugin, which would wait for itself.
    /// </para>
    /// </remarks>
    /// <param name="chain">
    /// The new chain. It belongs to the plugin from now on: if the replacement fails, it ends unless somebody else uses it.
    /// </param>
    /// <param name="cancellationToken">Gives up, and stays with the old chain.</param>
    /// <exception cref="ArgumentException">The chain is the one that serves already.</exception>
    /// <exception cref="InvalidOperationException">
    /// The plugin is not running, or the new chain cannot take over; the message says why.
    /// </exception>
    /// <exception cref="OperationCanceledException">The caller gave up, or the plugin stops.</exception>
    public async ValueTask ReplaceAsync(NbdBackend chain, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(chain);
        using var linked = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken, _stopping.Token);
        await _changing.WaitAsync(linked.Token).ConfigureAwait(false);
        try
        {
            NbdBackend old = Chain;
            if (ReferenceEquals(chain, old))
            {
                throw new ArgumentException("switch: this chain serves already.", nameof(chain));
            }
            if (!_running)
            {
                throw new InvalidOperationException("switch: the plugin is not running; there is nothing to replace.");
            }
            await StartAsync(chain, linked.Token).ConfigureAwait(false);
            List<InnerContext> left;
            try
            {
                left = await ChangeOverAsync(chain, linked.Token).ConfigureAwait(false);
            }
            catch
            {
                await chain.ReleaseAsync(host: false, CancellationToken.None).ConfigureAwait(false);
                throw;
            }
            await InnerContext.CloseAllAsync(left).ConfigureAwait(false);
            await old.ReleaseAsync(host: false, CancellationToken.None).ConfigureAwait(false);
        }
        finally
        {
            _changing.Release();
        }
    }

    private async ValueTask StartAsync(NbdBackend chain, CancellationToken cancellationToken)
    {
        try
        {
            await chain.AcquireAsync(Holder.LoggerFactory, host: false, cancellationToken).ConfigureAwait(false);
        }
        catch (Exception e)
        {
            await chain.DiscardAsync().ConfigureAwait(false);
            throw Refusal(chain, e, cancellationToken);
        }
    }

    /// <summary>Moves every context to the chain, or none.</summary>
    /// <returns>What is to be closed now.</returns>
    private async ValueTask<List<InnerContext>> ChangeOverAsync(NbdBackend chain, CancellationToken cancellationToken)
    {
        var change = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        SwitchHandle[] handles;
        lock (_lock)
        {
            _change = change;
            handles = [.. _handles];
        }
        var opened = new List<(SwitchHandle Handle, InnerContext Inner)>();
        List<InnerContext>? left = null;
        try
        {
            foreach (SwitchHandle handle in handles)
            {
                handle.Pause(change.Task);
            }
            await QuietAsync(handles, cancellationToken).ConfigureAwait(false);
            if (chain.ThreadModel == ThreadModel.SerializeConnections && handles.Length > 1)
            {
                throw new InvalidOperationException(
                    $"The chain of {chain.Name} cannot take over: it takes one connection at a time, and there are {handles.Length}.");
            }
            foreach (SwitchHandle handle in handles)
            {
                if (await OpenAsync(handle, chain, cancellationToken).ConfigureAwait(false) is { } inner)
                {
                    opened.Add((handle, inner));
                }
            }
            left = Commit(chain, opened);
        }
        finally
        {
            lock (_lock)
            {
                _change = null;
            }
            foreach (SwitchHandle handle in handles)
            {
                handle.Resume();
            }
            change.SetResult();
            if (left is null)
            {
                await InnerContext.CloseAllAsync(opened.Select(one => one.Inner)).ConfigureAwait(false);
            }
        }
        return left;
    }

    /// <summary>Waits for what is in flight, then has the old chain keep what it wrote.</summary>
    private async ValueTask QuietAsync(SwitchHandle[] handles, CancellationToken cancellationToken)
    {
        foreach (SwitchHandle handle in handles)
        {
            await handle.WaitForIdleAsync(cancellationToken).ConfigureAwait(false);
        }
        foreach (SwitchHandle handle in handles)
        {
            if (!TryHold(handle))
            {
                continue;
            }
            try
            {
                // The next flush of the client goes to the new chain, and has to cover what the old one took.
                await handle.FlushAsideAsync(cancellationToken).ConfigureAwait(false);
            }
            catch (Exception e)
            {
                throw Refusal(Chain, e, cancellationToken, "cannot be flushed");
            }
            finally
            {
                handle.Release();
            }
        }
    }

    /// <summary>Opens the new chain for a context, or returns null if the context is as good as closed.</summary>
    private async ValueTask<InnerContext?> OpenAsync(
        SwitchHandle handle, NbdBackend chain, CancellationToken cancellationToken)
    {
        NbdOpenContext context = handle.Context;
        InnerContext? inner = null;
        try
        {
            inner = await InnerContext.OpenAsync(
                chain, Holder, context.ReadOnly, context.ExportName, context.Connection, cancellationToken)
                .ConfigureAwait(false);
            return InfoLoss.Find(handle.Info, inner.Info) is not { } loss
                ? inner
                : throw new InvalidOperationException(loss);
        }
        catch (Exception e)
        {
            if (inner is not null)
            {
                await inner.CloseAsync().ConfigureAwait(false);
            }
            bool isLeaving;
            lock (_lock)
            {
                isLeaving = !_handles.Contains(handle);
            }
            bool isGone = isLeaving || context.Connection is { Aborted.IsCancellationRequested: true };
            if (isGone && !cancellationToken.IsCancellationRequested)
            {
                // It ends on the old chain, which lives until then.
                return null;
            }
            throw Refusal(chain, e, cancellationToken);
        }
    }

    private List<InnerContext> Commit(NbdBackend chain, List<(SwitchHandle Handle, InnerContext Inner)> opened)
    {
        var left = new List<InnerContext>(opened.Count);
        lock (_lock)
        {
            foreach ((SwitchHandle handle, InnerContext inner) in opened)
            {
                left.Add(_handles.Contains(handle) ? handle.Attach(inner) : inner);
            }
            Volatile.Write(ref _chain, chain);
        }
        return left;
    }

    private static Exception Refusal(
        NbdBackend chain, Exception e, CancellationToken cancellationToken, string what = "cannot take over")
        => e is OperationCanceledException && cancellationToken.IsCancellationRequested
            ? new OperationCanceledException(e.Message, e, cancellationToken)
            : new InvalidOperationException($"The chain of {chain.Name} {what}: {e.Message}", e);
}
