namespace NbdKit.Filters;

// One context of the layer below and the requests that run on it, or, if it could not be opened, why.
public sealed partial class RetryFilter
{
    private sealed class Generation
    {
        private readonly Lock _lock = new();
        private readonly NextContext? _context;
        private TaskCompletionSource? _idle;
        private int _requests;
        private bool _retired;

        public Generation(NextContext context) => _context = context;

        public Generation(Exception failure) => Failure = failure;

        /// <summary>Why the layer below could not be opened, or null.</summary>
        public Exception? Failure { get; }

        /// <summary>What to tell one request about <see cref="Failure"/>.</summary>
        public NbdException NewFailure()
            => new(NbdError.Shutdown, $"the disk could not be opened again: {Failure!.Message}", Failure);

        /// <summary>
        /// Takes hold of the context for one request; false if it is retired. Without a context there is nothing to hold.
        /// </summary>
        public bool TryEnter(out NextContext? context)
        {
            context = _context;
            if (context is null)
            {
                return true;
            }
            lock (_lock)
            {
                if (_retired)
                {
                    return false;
                }
                _requests++;
                return true;
            }
        }

        public void Leave()
        {
            lock (_lock)
            {
                if (--_requests == 0)
                {
                    _idle?.TrySetResult();
                }
            }
        }

        /// <summary>Lets no further request in; returns whether none is there.</summary>
        public bool Retire()
        {
            lock (_lock)
            {
                _retired = true;
                return _requests == 0;
            }
        }

        /// <summary>Waits for the last request of a retired generation.</summary>
        public Task WaitForRequestsAsync()
        {
            lock (_lock)
            {
                if (_requests == 0)
                {
                    return Task.CompletedTask;
                }
                _idle ??= new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
                return _idle.Task;
            }
        }

        /// <summary>The last work of the context, if there is one; nothing may run on it.</summary>
        public ValueTask FinalizeAsync(CancellationToken cancellationToken)
            => _context?.FinalizeAsync(cancellationToken) ?? default;

        /// <summary>Closes the context, if there is one, finalized or not.</summary>
        public ValueTask CloseAsync() => _context?.CloseAsync() ?? default;
    }
}
