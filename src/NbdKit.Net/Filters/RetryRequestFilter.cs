using System.Runtime.CompilerServices;
using System.Runtime.ExceptionServices;
using NbdKit.Layers;

namespace NbdKit.Filters;

/// <summary>
/// Makes a request again that failed, without opening the layer below again as <see cref="RetryFilter"/> does. Corresponds to
/// nbdkit-retry-request-filter(1).
/// </summary>
/// <remarks>
/// A request that waits for its next attempt holds up no other. It is given up when its client goes away. A fast zero that was
/// declined is not made again. nbdkit's makes a request again whatever it failed with; here see <see cref="Errors"/>.
/// </remarks>
public sealed class RetryRequestFilter : INbdFilter
{
    /// <summary>The filter in the catalogue.</summary>
    public static NbdFilterEntry Entry { get; } = new(
        "retry-request",
        "makes requests again that failed",
        [
            new NbdParameter("retry-request-retries", "how often a request is made again (default 2)"),
            new NbdParameter("retry-request-delay", "how long to wait before that (default 2 seconds)"),
            new NbdParameter("retry-request-open", "whether an open is made again too (default yes)"),
        ],
        parameters => new RetryRequestFilter
        {
            Retries = parameters.Integer("retry-request-retries") ?? 2,
            RetryDelay = parameters.Delay("retry-request-delay") ?? TimeSpan.FromSeconds(2),
            RetryOpen = parameters.Boolean("retry-request-open") ?? true,
        });

    /// <summary>How often a request is made again after it failed. 2 by default; 0 for never.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is negative.</exception>
    public int Retries
    {
        get;
        init
        {
            ArgumentOutOfRangeException.ThrowIfNegative(value);
            field = value;
        }
    } = 2;

    /// <summary>How long a request waits before it is made again, up to 49 days. 2 seconds by default.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is negative or too long.</exception>
    public TimeSpan RetryDelay { get; init => field = TimerRange.Checked(value); } = TimeSpan.FromSeconds(2);

    /// <summary>
    /// Whether opening and preparing the layer below, its size included, is tried again like a request. True by default.
    /// </summary>
    public bool RetryOpen { get; init; } = true;

    /// <summary>
    /// The errors after which a request is made again. By default EIO, ENOMEM and ESHUTDOWN: time does not cure a lack of permission or
    /// a wrong request. An exception that is not an <see cref="NbdException"/> counts as EIO.
    /// </summary>
    /// <exception cref="ArgumentNullException">The value is null.</exception>
    public IReadOnlyCollection<NbdError> Errors
    {
        get;
        init => field = value ?? throw new ArgumentNullException(nameof(value));
    } = [NbdError.IoError, NbdError.OutOfMemory, NbdError.Shutdown];

    /// <summary>
    /// Decides, instead of <see cref="Errors"/>, whether what a request failed with is worth another try. Called by several threads at
    /// once. Null by default.
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
    public string Name => "retry-request";

    /// <inheritdoc/>
    /// <remarks>
    /// Not serialized even if the layers below are: they guard themselves, and a request that waits for its next attempt holds up no
    /// other.
    /// </remarks>
    public ThreadModel GetThreadModel(ThreadModel next)
        => next is ThreadModel.SerializeRequests or ThreadModel.SerializeAllRequests ? ThreadModel.Parallel : next;

    /// <inheritdoc/>
    public async ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(context);
        for (int attempt = 0; ; attempt++)
        {
            try
            {
                await OpenNextAsync(context, cancellationToken).ConfigureAwait(false);
                return new Handle(this);
            }
            catch (Exception e) when (RetryOpen && attempt < Retries && IsWorthRetrying(e, cancellationToken))
            {
                await WaitAsync(e, cancellationToken).ConfigureAwait(false);
            }
        }
    }

    private static async ValueTask OpenNextAsync(NbdContext context, CancellationToken cancellationToken)
    {
        NextContext next = await context.Backend.OpenNextAsync(context.ReadOnly, context.ExportName, context, cancellationToken)
            .ConfigureAwait(false);
        try
        {
            await next.PrepareAsync(cancellationToken).ConfigureAwait(false);
            context.SetNext(next);
        }
        catch
        {
            await next.CloseAsync().ConfigureAwait(false);
            throw;
        }
    }

    private bool IsWorthRetrying(Exception failure, CancellationToken cancellationToken)
        => RetryDecision.IsWorthIt(failure, ShouldRetry, Errors, cancellationToken);

    private async ValueTask WaitAsync(Exception failure, CancellationToken cancellationToken)
    {
        try
        {
            await Task.Delay(RetryDelay, TimeProvider, cancellationToken).ConfigureAwait(false);
        }
        catch (OperationCanceledException)
        {
            throw new NbdException(NbdError.Shutdown, "the client left before a request was made again", failure);
        }
    }

    private sealed class Handle(RetryRequestFilter filter) : RequestHandle
    {
        protected override ValueTask RunAsync(in LayerCall call, NextContext next, CancellationToken cancellationToken)
        {
            ValueTask attempt = Attempt(call, next, cancellationToken);
            if (!attempt.IsCompletedSuccessfully)
            {
                return FinishAsync(call, attempt, next, cancellationToken);
            }
            attempt.GetAwaiter().GetResult();
            return default;
        }

        private static ValueTask Attempt(in LayerCall call, NextContext next, CancellationToken cancellationToken)
        {
            try
            {
                return call.Invoke(next, cancellationToken);
            }
            catch (Exception e)
            {
                return ValueTask.FromException(e);
            }
        }

        [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
        private async ValueTask FinishAsync(LayerCall call, ValueTask attempt, NextContext next, CancellationToken cancellationToken)
        {
            for (int retries = 0; ; retries++)
            {
                Exception failure;
                try
                {
                    await attempt.ConfigureAwait(false);
                    return;
                }
                catch (Exception e)
                {
                    failure = e;
                }
                if (retries == filter.Retries || !filter.IsWorthRetrying(failure, cancellationToken))
                {
                    ExceptionDispatchInfo.Throw(failure);
                }
                await filter.WaitAsync(failure, cancellationToken).ConfigureAwait(false);
                // What a failed attempt found out is not to be mixed with what the next one does.
                call.Answer?.Reset(call.Answer.Start, call.Answer.End);
                attempt = Attempt(call, next, cancellationToken);
            }
        }
    }
}
