using System.Threading.Tasks.Sources;

namespace NbdKit.Copy;

/// <summary>
/// Lets the pieces through in the order of their numbers, for what has to be done in order. Each worker waits for one number
/// at a time, and no number is left out, so that there are never more numbers about than workers.
/// </summary>
internal sealed class OrderGate(int workers)
{
    private readonly Lock _lock = new();
    private readonly Turn?[] _waiting = new Turn?[workers];
    private long _next;
    private bool _aborted;

    /// <summary>Waits until all pieces with lower numbers are through.</summary>
    /// <param name="sequence">The number of the piece.</param>
    /// <param name="turn">The worker's own.</param>
    /// <exception cref="OperationCanceledException">The copy is over.</exception>
    public ValueTask WaitAsync(long sequence, Turn turn)
    {
        lock (_lock)
        {
            if (_aborted)
            {
                throw new OperationCanceledException();
            }
            if (sequence == _next)
            {
                return default;
            }
            _waiting[sequence % workers] = turn;
            return turn.Begin();
        }
    }

    /// <summary>Lets the next piece through; called by the one that is.</summary>
    public void Advance()
    {
        Turn? turn;
        lock (_lock)
        {
            _next++;
            ref Turn? place = ref _waiting[_next % workers];
            turn = place;
            place = null;
        }
        turn?.Come();
    }

    /// <summary>Sends all away that wait, and whoever comes.</summary>
    public void Abort()
    {
        List<Turn> turns = [];
        lock (_lock)
        {
            _aborted = true;
            for (int i = 0; i < _waiting.Length; i++)
            {
                if (_waiting[i] is { } turn)
                {
                    turns.Add(turn);
                    _waiting[i] = null;
                }
            }
        }
        foreach (Turn turn in turns)
        {
            turn.GiveUp();
        }
    }

    /// <summary>What a worker waits with; used again for each wait.</summary>
    internal sealed class Turn : IValueTaskSource
    {
        private ManualResetValueTaskSourceCore<bool> _core = new() { RunContinuationsAsynchronously = true };

        public ValueTask Begin()
        {
            _core.Reset();
            return new ValueTask(this, _core.Version);
        }

        public void Come() => _core.SetResult(true);

        public void GiveUp() => _core.SetException(new OperationCanceledException());

        public void GetResult(short token) => _core.GetResult(token);

        public ValueTaskSourceStatus GetStatus(short token) => _core.GetStatus(token);

        public void OnCompleted(
            Action<object?> continuation, object? state, short token, ValueTaskSourceOnCompletedFlags flags)
            => _core.OnCompleted(continuation, state, token, flags);
    }
}
