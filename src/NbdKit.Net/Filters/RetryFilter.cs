using NbdKit.Layers;

namespace NbdKit.Filters;

/// <summary>
/// Opens the layer below again when a request fails, and tries the request again on what it opened. Clients only notice that
/// it took longer. Corresponds to nbdkit-retry-filter(1).
/// </summary>
/// <remarks>
/// <para>
/// A request that fails waits its delay and then needs a newer context of the layer below than the one that it failed on.
/// However many requests failed on one context, it is replaced once. While they wait, other requests go on using it; it is
/// left when the first of the failed ones has waited long enough, finalized and closed after its last request, and before
/// the next one is opened if nothing runs on it then (some disks can be open only once). Opening again counts as an attempt
/// of every request that waits for it; if it fails, they wait and try again, and later requests do so too.
/// </para>
/// <para>
/// Requests are not serialized. Before each attempt a request is held against what the new context can do: it fails, as that
/// attempt, with EIO, or ENOSPC or EPERM for one that writes, if it does not fit. The size and the abilities that
/// the client was told do not change. A fast zero is never retried for being declined.
/// </para>
/// <para>
/// Writes that succeeded and were not flushed before the layer below was lost are as safe as that layer made them; a flush
/// afterwards reaches the context opened since.
/// </para>
/// <para>
/// Differences from nbdkit: by default only EIO, ENOMEM and ESHUTDOWN are retried (<see cref="Errors"/>), a context that
/// fails to finalize is reported and not counted as an attempt, and prefetches that the new context does not offer succeed.
/// </para>
/// </remarks>
public sealed partial class RetryFilter : INbdFilter
{
    /// <summary>How often a request is tried again after it failed. 5 by default; 0 for never.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is negative.</exception>
    public int Retries
    {
        get;
        init
        {
            ArgumentOutOfRangeException.ThrowIfNegative(value);
            field = value;
        }
    } = 5;

    /// <summary>How long a request waits before it is tried again for the first time, up to 49 days. 2 seconds by default.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is negative or too long.</exception>
    public TimeSpan RetryDelay { get; init => field = TimerRange.Checked(value); } = TimeSpan.FromSeconds(2);

    /// <summary>Whether each further delay of a request is twice the one before. True by default.</summary>
    public bool Exponential { get; init; } = true;

    /// <summary>
    /// Whether the layer below is opened read-only from the second time on: writes, trims and zeroes then fail with EPERM at
    /// once. False by default.
    /// </summary>
    public bool ReopenReadOnly { get; init; }

    /// <summary>Whether the first open of the layer below is tried again like a request. True by default.</summary>
    public bool RetryOpen { get; init; } = true;

    /// <summary>
    /// The errors after which a request, or the first open, is tried again. By default EIO, ENOMEM and ESHUTDOWN: opening
    /// the layer below again does not cure a full disk, a lack of permission or a wrong request. An exception that is not an
    /// <see cref="NbdException"/> counts as EIO.
    /// </summary>
    /// <exception cref="ArgumentNullException">The value is null.</exception>
    public IReadOnlyCollection<NbdError> Errors
    {
        get;
        init => field = value ?? throw new ArgumentNullException(nameof(value));
    } = [NbdError.IoError, NbdError.OutOfMemory, NbdError.Shutdown];

    /// <summary>
    /// Decides, instead of <see cref="Errors"/>, whether what a request failed with is worth another try. Called by several
    /// threads at once. Null by default.
    /// </summary>
    public Func<Exception, bool>? ShouldRetry { get; init; }

    /// <summary>The clock of the delays. The system's by default.</summary>
    /// <exception cref="ArgumentNullException">The value is null.</exception>
    public TimeProvider TimeProvider
    {
        get;
        init => field = value ?? throw new ArgumentNullException(nameof(value));
    } = TimeProvider.System;

    /// <inheritdoc/>
    public string Name => "retry";

    /// <inheritdoc/>
    /// <remarks>
    /// Not serialized even if the layers below are: they guard themselves, and a request that waits for its next attempt
    /// holds up no other.
    /// </remarks>
    public ThreadModel GetThreadModel(ThreadModel next)
        => next is ThreadModel.SerializeRequests or ThreadModel.SerializeAllRequests ? ThreadModel.Parallel : next;

    /// <inheritdoc/>
    public async ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
    {
        for (int attempt = 0; ; attempt++)
        {
            try
            {
                NextContext first = await OpenPreparedAsync(context, context.ReadOnly, cancellationToken).ConfigureAwait(false);
                return new RetryHandle(this, context, first);
            }
            catch (Exception e) when (RetryOpen && attempt < Retries && IsWorthRetrying(e, cancellationToken))
            {
                await WaitAsync(attempt, e, cancellationToken).ConfigureAwait(false);
            }
        }
    }

    private static async ValueTask<NextContext> OpenPreparedAsync(
        NbdContext context, bool readOnly, CancellationToken cancellationToken)
    {
        NextContext next = await context.Backend.OpenNextAsync(readOnly, context.ExportName, context, cancellationToken)
            .ConfigureAwait(false);
        try
        {
            await next.PrepareAsync(cancellationToken).ConfigureAwait(false);
            return next;
        }
        catch
        {
            await next.CloseAsync().ConfigureAwait(false);
            throw;
        }
    }

    private bool IsWorthRetrying(Exception failure, CancellationToken cancellationToken)
        => RetryDecision.IsWorthIt(failure, ShouldRetry, Errors, cancellationToken);

    private async ValueTask WaitAsync(int attempt, Exception failure, CancellationToken cancellationToken)
    {
        TimeSpan delay = RetryDelay;
        for (; Exponential && attempt > 0 && delay > TimeSpan.Zero && delay < TimerRange.Longest / 2; attempt--)
        {
            delay *= 2;
        }
        try
        {
            await Task.Delay(delay, TimeProvider, cancellationToken).ConfigureAwait(false);
        }
        catch (OperationCanceledException)
        {
            throw new NbdException(NbdError.Shutdown, "the client left before a request was tried again", failure);
        }
    }
}
