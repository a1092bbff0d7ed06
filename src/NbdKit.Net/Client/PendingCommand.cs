using System.Threading.Tasks.Sources;
using NbdKit.Protocol;

namespace NbdKit.Client;

/// <summary>
/// One request of a client, from its call to the moment when neither the caller nor the server has anything to do with it any
/// more. Pooled.
/// </summary>
/// <remarks>
/// <para>
/// It has two owners: the caller, until the result was fetched, and the connection, until the reply has arrived or will never
/// come. A request that was given up (cancelled, or too late) ends for its caller at once; its cookie stays taken, and the reply
/// is still checked, and thrown away.
/// </para>
/// <para>
/// <see cref="IsTouched"/> is set while its memory is in use: by the receiving loop for the moment of a copy, by the sender until
/// the payload of a write has left. Until then the caller is not told about any end. All that is marked so is guarded by the lock
/// of <see cref="ClientTransmission"/>.
/// </para>
/// </remarks>
internal sealed class PendingCommand(ClientTransmission transmission) : IValueTaskSource
{
    private ManualResetValueTaskSourceCore<bool> _core;
    private CancellationToken _cancellationToken;
    private CancellationTokenRegistration _registration;
    private int _owners;

    public CommandType Type { get; private set; }

    public CommandFlags Flags { get; private set; }

    public long Offset { get; private set; }

    public long Length { get; private set; }

    /// <summary>Where the data of a read goes.</summary>
    public Memory<byte> Buffer { get; private set; }

    /// <summary>The payload.</summary>
    public ReadOnlyMemory<byte> Data { get; private set; }

    /// <summary>Receives a block status; null for other commands.</summary>
    public BlockStatusReply? Status { get; private set; }

    /// <summary>Receives where the data of a sparse read lies; null for other commands.</summary>
    public List<NbdReadChunk>? Chunks { get; private set; }

    public ulong Cookie { get; set; }

    /// <summary>When the call was made, on the clock of the transmission.</summary>
    public long Started { get; set; }

    /// <summary>The next that completed (<see cref="CompletionQueue"/>).</summary>
    public PendingCommand? Next { get; set; }

    /// <summary>Its neighbours in the <see cref="WaitingList"/>.</summary>
    public PendingCommand? WaitingBefore { get; set; }

    /// <inheritdoc cref="WaitingBefore"/>
    public PendingCommand? WaitingAfter { get; set; }

    // ---- guarded by the lock of the transmission ----

    /// <summary>Whether it was given a cookie: then a part of it may be on its way.</summary>
    public bool IsStarted { get; set; }

    /// <summary>Whether its memory is in use.</summary>
    public bool IsTouched { get; set; }

    /// <summary>Whether the outcome for the caller is decided.</summary>
    public bool IsEnded { get; private set; }

    // ---- the receiving loop's ----

    /// <summary>Which bytes of a read have come.</summary>
    public ReadCoverage Coverage { get; } = new();

    /// <summary>The chunks with content that have come.</summary>
    public int ContentChunks { get; set; }

    /// <summary>The error that the server reported, or null.</summary>
    public NbdException? Fault { get; set; }

    /// <summary>What the caller awaits.</summary>
    public ValueTask Task => new(this, _core.Version);

    private Exception? Outcome { get; set; }

    /// <summary>Whether carrying it out changes the export.</summary>
    private bool IsChange => Type is CommandType.Write or CommandType.Trim or CommandType.WriteZeroes;

    public void Begin(
        CommandType type,
        CommandFlags flags,
        long offset,
        long length,
        Memory<byte> buffer = default,
        ReadOnlyMemory<byte> data = default,
        BlockStatusReply? status = null,
        List<NbdReadChunk>? chunks = null)
    {
        Type = type;
        Flags = flags;
        Offset = offset;
        Length = length;
        Buffer = buffer;
        Data = data;
        Status = status;
        Chunks = chunks;
        _owners = 2;
    }

    /// <summary>Arranges for the token to give the request up. Before the caller sees the task.</summary>
    public void Register(CancellationToken cancellationToken)
    {
        if (cancellationToken.CanBeCanceled)
        {
            _cancellationToken = cancellationToken;
            _registration = cancellationToken.UnsafeRegister(static state => ((PendingCommand)state!).Cancel(), this);
        }
    }

    /// <summary>Decides the outcome. Under the lock.</summary>
    public void End(Exception? outcome)
    {
        IsEnded = true;
        Outcome = outcome;
    }

    /// <summary>What the end of the connection is to this request.</summary>
    public Exception FailureBy(NbdClientException cause)
        => new NbdClientException(cause.Error, cause.Message, cause) { IsOutcomeUnknown = IsStarted && IsChange };

    /// <summary>Tells the caller, and runs what continues there. Never under a lock.</summary>
    public void Complete()
    {
        if (Outcome is not { } failure)
        {
            _core.SetResult(true);
            return;
        }
        // Nobody shall take for data what a failed read left behind.
        Buffer.Span.Clear();
        _core.SetException(failure);
    }

    /// <summary>The connection has done with it.</summary>
    public void ReleaseByConnection() => Release();

    void IValueTaskSource.GetResult(short token)
    {
        // Whoever asks too early, or again, must not give back what is in use: this throws for a request that is another by now.
        if (_core.GetStatus(token) == ValueTaskSourceStatus.Pending)
        {
            throw new InvalidOperationException("The request has not completed: await it.");
        }
        try
        {
            _core.GetResult(token);
        }
        finally
        {
            // Waits for a cancellation that is running this moment: it must not hit the next request.
            _registration.Dispose();
            Release();
        }
    }

    ValueTaskSourceStatus IValueTaskSource.GetStatus(short token) => _core.GetStatus(token);

    void IValueTaskSource.OnCompleted(
        Action<object?> continuation, object? state, short token, ValueTaskSourceOnCompletedFlags flags)
        => _core.OnCompleted(continuation, state, token, flags);

    private void Cancel() => transmission.Abandon(this, new OperationCanceledException(_cancellationToken));

    private void Release()
    {
        if (Interlocked.Decrement(ref _owners) != 0)
        {
            return;
        }
        _core.Reset();
        _registration = default;
        _cancellationToken = default;
        Buffer = default;
        Data = default;
        Status = null;
        Chunks = null;
        Outcome = null;
        Fault = null;
        Next = null;
        IsEnded = IsStarted = IsTouched = false;
        ContentChunks = 0;
        Coverage.Clear();
        transmission.Return(this);
    }
}
