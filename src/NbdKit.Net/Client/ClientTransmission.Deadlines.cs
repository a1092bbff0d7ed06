using NbdKit.Protocol;

namespace NbdKit.Client;

// The time for each request: one timer for all of them, set for the one that is due first.
internal sealed partial class ClientTransmission
{
    private ITimer? _timer;
    private bool _timerSet;

    private bool HasDeadlines => _options.RequestTimeout != Timeout.InfiniteTimeSpan;

    private long Now() => HasDeadlines ? _options.TimeProvider.GetTimestamp() : 0;

    private void WatchDeadlines()
    {
        if (!HasDeadlines)
        {
            return;
        }
        lock (_lock)
        {
            if (_timerSet || _end is not null)
            {
                return;
            }
            _timerSet = true;
            // All requests have the same time: the first that is due is the one that was made first, and that is this one.
            _timer ??= _options.TimeProvider.CreateTimer(
                static state => ((ClientTransmission)state!).Expire(), this, Timeout.InfiniteTimeSpan, Timeout.InfiniteTimeSpan);
            _timer.Change(_options.RequestTimeout, Timeout.InfiniteTimeSpan);
        }
    }

    private void Expire()
    {
        List<PendingCommand> expired = [];
        bool stuck = false;
        lock (_lock)
        {
            _timerSet = false;
            TimeSpan next = Timeout.InfiniteTimeSpan;
            foreach (PendingCommand? command in _places)
            {
                Inspect(command, ref next, ref stuck, expired);
            }
            for (PendingCommand? command = _waiting.Peek(); command is not null; command = command.WaitingAfter)
            {
                Inspect(command, ref next, ref stuck, expired);
            }
            foreach (PendingCommand command in expired)
            {
                if (!command.IsStarted)
                {
                    _waiting.Remove(command);
                    command.ReleaseByConnection();
                }
                Decide(command, command.FailureBy(TooLate()));
            }
            if (next != Timeout.InfiniteTimeSpan && _end is null)
            {
                _timerSet = true;
                _timer!.Change(next, Timeout.InfiniteTimeSpan);
            }
        }
        _completions.ScheduleIfAny();
        if (stuck)
        {
            // A frame cannot be cut short, and the payload in it is the caller's.
            Fail(new NbdClientException(
                NbdClientError.Timeout, $"The server did not take a write for {_options.RequestTimeout.TotalSeconds} s."));
        }
    }

    private void Inspect(PendingCommand? command, ref TimeSpan next, ref bool stuck, List<PendingCommand> expired)
    {
        if (command is null || command.IsEnded)
        {
            // Given up but held by a send that does not end.
            if (command is { IsTouched: true, Type: CommandType.Write })
            {
                TimeSpan held = Left(command);
                stuck |= held <= TimeSpan.Zero;
                next = held > TimeSpan.Zero && (next == Timeout.InfiniteTimeSpan || held < next) ? held : next;
            }
            return;
        }
        TimeSpan left = Left(command);
        if (left > TimeSpan.Zero)
        {
            next = next == Timeout.InfiniteTimeSpan || left < next ? left : next;
        }
        else if (command is { IsTouched: true, Type: CommandType.Write })
        {
            stuck = true;
        }
        else
        {
            expired.Add(command);
        }
    }

    private TimeSpan Left(PendingCommand command)
        => _options.RequestTimeout - _options.TimeProvider.GetElapsedTime(command.Started);

    private NbdClientException TooLate() => new(
        NbdClientError.Timeout, $"The server did not answer within {_options.RequestTimeout.TotalSeconds} s.");
}
