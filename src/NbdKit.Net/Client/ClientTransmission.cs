using Microsoft.Extensions.ObjectPool;
using NbdKit.Buffers;
using NbdKit.Transports;

namespace NbdKit.Client;

/// <summary>
/// The transmission phase of one connection: requests of any threads go out in the order of their calls, gathered; replies are
/// matched by their cookies.
/// </summary>
/// <remarks>
/// <para>The way of a request:</para>
/// <code>
/// 1  SubmitAsync   takes a place among those in flight, or waits for one in a list
/// 2  Start         gives it a cookie and stages it                       (RequestStage)
/// 3  Send          sends all that is staged, on the thread of the caller or of completions
/// 4  ReplyReader   receives the reply and decides the outcome            (receiving loop)
/// 5  Finish        frees the place for the next that waits
/// 6  Complete      runs what continues after the call                    (CompletionQueue, on the thread pool)
/// </code>
/// <para>
/// A cookie is a place and a count, so it returns only after the count has gone round: 2^32 requests later. A place stays taken
/// until its reply has arrived, also when the caller has given the request up.
/// </para>
/// </remarks>
internal sealed partial class ClientTransmission : IPooledObjectPolicy<PendingCommand>
{
    private readonly Lock _lock = new();
    private readonly Transport _transport;
    private readonly NbdClientOptions _options;
    private readonly RequestStage _stage;
    private readonly CompletionQueue _completions;
    private readonly ReplyReader _reader;
    private readonly ObjectPool<PendingCommand> _pool;
    private readonly PendingCommand?[] _places;
    private readonly Stack<int> _free;
    private readonly WaitingList _waiting = new();
    private uint _count;
    private int _live;

    /// <summary>Takes over a connection whose handshake is over, and begins to receive.</summary>
    public ClientTransmission(ClientSession session, NbdClientOptions options)
    {
        Session = session;
        _options = options;
        _transport = session.Transport;
        _stage = new RequestStage(Slabs, session.ExtendedHeaders);
        _completions = new CompletionQueue(this);
        _continueSending = ContinueSending;
        _places = new PendingCommand?[options.MaxRequestsInFlight];
        _free = new Stack<int>(_places.Length);
        for (int i = _places.Length - 1; i >= 0; i--)
        {
            _free.Push(i);
        }
        _pool = new DefaultObjectPool<PendingCommand>(this, _places.Length * 2);
        _reader = new ReplyReader(this, session, options, Slabs);
        _transport.BeginTransmission();
        _receiving = ReceiveAsync();
    }

    public ClientSession Session { get; }

    public SlabPool Slabs { get; } = new();

    /// <summary>The requests that have a cookie now, also those that were given up.</summary>
    public int InFlight
    {
        get
        {
            lock (_lock)
            {
                return _places.Length - _free.Count;
            }
        }
    }

    public PendingCommand Rent() => _pool.Get();

    public void Return(PendingCommand command) => _pool.Return(command);

    PendingCommand IPooledObjectPolicy<PendingCommand>.Create() => new(this);

    // What is left when a connection has ended is left to the garbage collector: the receiving loop may still look at it.
    bool IPooledObjectPolicy<PendingCommand>.Return(PendingCommand obj) => Volatile.Read(ref _end) is null;

    /// <summary>Sends a request, at once or when its turn comes.</summary>
    public ValueTask SubmitAsync(PendingCommand command, CancellationToken cancellationToken)
    {
        ValueTask task = command.Task;
        bool held;
        lock (_lock)
        {
            if (Refusal() is { } refusal)
            {
                return ValueTask.FromException(refusal);
            }
            _live++;
            command.Started = Now();
            if (_waiting.IsEmpty && _free.Count > 0)
            {
                Start(command);
            }
            else
            {
                _waiting.Add(command);
            }
            held = _holds > 0;
        }
        command.Register(cancellationToken);
        WatchDeadlines();
        if (held)
        {
            // Who runs completions makes more requests: they go out together, at the latest when a thread is free to do so.
            _completions.Schedule();
        }
        else
        {
            Send();
        }
        return task;
    }

    /// <summary>Ends a request for its caller; its reply, if one comes, is thrown away.</summary>
    public void Abandon(PendingCommand command, Exception reason)
    {
        bool tell;
        bool waited;
        lock (_lock)
        {
            if (command.IsEnded)
            {
                return;
            }
            waited = !command.IsStarted;
            if (waited)
            {
                _waiting.Remove(command);
            }
            tell = Decide(command, reason);
        }
        if (waited)
        {
            command.ReleaseByConnection();
        }
        if (tell)
        {
            _completions.Schedule();
        }
    }

    // ---- for the receiving loop ----

    /// <summary>The request of a cookie, or null.</summary>
    public PendingCommand? Find(ulong cookie)
    {
        uint place = (uint)cookie;
        lock (_lock)
        {
            return place < (uint)_places.Length && _places[place] is { } command && command.Cookie == cookie ? command : null;
        }
    }

    /// <summary>Whether the memory of a request may be written; then it is the loop's until <see cref="EndTouch"/>.</summary>
    public bool TryTouch(PendingCommand command)
    {
        lock (_lock)
        {
            if (command.IsEnded)
            {
                return false;
            }
            command.IsTouched = true;
            return true;
        }
    }

    public void EndTouch(PendingCommand command)
    {
        lock (_lock)
        {
            command.IsTouched = false;
            if (!command.IsEnded)
            {
                return;
            }
            // Given up meanwhile: now its caller can be told.
            _completions.Add(command);
        }
        _completions.Schedule();
    }

    /// <summary>The reply has arrived as a whole.</summary>
    public void Finish(PendingCommand command)
    {
        bool started = false;
        lock (_lock)
        {
            if (_end is not null)
            {
                return;
            }
            if (!command.IsEnded)
            {
                Decide(command, command.Fault);
            }
            int place = (int)(uint)command.Cookie;
            _places[place] = null;
            _free.Push(place);
            while (_free.Count > 0 && _waiting.TakeFirst() is { } next)
            {
                Start(next);
                started = true;
            }
        }
        command.ReleaseByConnection();
        if (started)
        {
            _startedByReply = true;
        }
    }

    /// <summary>Before the loop waits: what has completed is told, what was started is sent.</summary>
    public void Settle()
    {
        if (_startedByReply)
        {
            _startedByReply = false;
            _completions.Schedule();
        }
        else
        {
            _completions.ScheduleIfAny();
        }
    }

    // ---- under the lock ----

    /// <summary>Decides the outcome; true if the caller can be told, which is the case unless its memory is in use.</summary>
    private bool Decide(PendingCommand command, Exception? outcome)
    {
        command.End(outcome);
        _live--;
        if (_live == 0)
        {
            _drained?.TrySetResult();
        }
        if (!command.IsTouched)
        {
            _completions.Add(command);
        }
        return !command.IsTouched;
    }

    private void Start(PendingCommand command)
    {
        int place = _free.Pop();
        command.Cookie = ((ulong)++_count << 32) | (uint)place;
        command.IsStarted = true;
        _places[place] = command;
        _stage.Add(command);
    }
}
