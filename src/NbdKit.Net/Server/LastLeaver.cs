namespace NbdKit.Server;

/// <summary>Acts when the last client has left, and none has come for a while after that.</summary>
internal sealed class LastLeaver(TimeSpan grace, TimeProvider timeProvider) : IDisposable
{
    private readonly Lock _lock = new();
    private ITimer? _timer;
    private bool _ended;

    /// <summary>A client is there.</summary>
    public void Came()
    {
        lock (_lock)
        {
            _timer?.Dispose();
            _timer = null;
        }
    }

    /// <summary>Nobody is there any more.</summary>
    public void Left(Action act)
    {
        if (grace == TimeSpan.Zero)
        {
            act();
            return;
        }
        lock (_lock)
        {
            if (_ended)
            {
                return;
            }
            _timer?.Dispose();
            var wait = new Wait(act);
            // Set before it can fire.
            _timer = wait.Timer = timeProvider.CreateTimer(
                state => Fire((Wait)state!), wait, Timeout.InfiniteTimeSpan, Timeout.InfiniteTimeSpan);
            _timer.Change(grace, Timeout.InfiniteTimeSpan);
        }
    }

    public void Dispose()
    {
        lock (_lock)
        {
            // Whoever leaves from now on sets no timer that would keep the server.
            _ended = true;
            Came();
        }
    }

    private void Fire(Wait wait)
    {
        lock (_lock)
        {
            if (_timer is null || _timer != wait.Timer)
            {
                return;
            }
            _timer.Dispose();
            _timer = null;
        }
        wait.Act();
    }

    private sealed class Wait(Action act)
    {
        public Action Act { get; } = act;

        public ITimer? Timer { get; set; }
    }
}
