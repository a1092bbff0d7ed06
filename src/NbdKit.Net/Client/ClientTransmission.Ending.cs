using System.Net.Sockets;
using NbdKit.Server;

namespace NbdKit.Client;

// The ends: the client leaves in order, the server says that it is stopping, or the connection fails. The first one counts.
internal sealed partial class ClientTransmission : IAsyncDisposable
{
    /// <summary>How long a client that leaves waits for what is in flight, and for the server to close.</summary>
    private static readonly TimeSpan Grace = TimeSpan.FromSeconds(5);

    private static readonly TimeSpan CloseGrace = TimeSpan.FromSeconds(1);

    private readonly CancellationTokenSource _aborted = new();
    private readonly Task _receiving;
    private TaskCompletionSource? _drained;
    private Task? _leaving;
    private NbdClientException? _end;
    private NbdClientException? _refusal;
    private bool _left;

    /// <summary>Whether requests can be made.</summary>
    public bool IsOpen
    {
        get
        {
            lock (_lock)
            {
                return Refusal() is null;
            }
        }
    }

    /// <summary>Why the connection has failed, or null.</summary>
    public NbdClientException? Failure
    {
        get
        {
            lock (_lock)
            {
                return _left ? null : _end;
            }
        }
    }

    /// <summary>Leaves: no new requests, those in flight get their replies, NBD_CMD_DISC.</summary>
    public Task DisconnectAsync(CancellationToken cancellationToken)
    {
        Task leaving;
        lock (_lock)
        {
            leaving = _leaving ??= LeaveAsync(NbdClientError.ConnectionLost, "The client has disconnected.");
        }
        return cancellationToken.CanBeCanceled ? LeaveOrAbortAsync(leaving, cancellationToken) : leaving;
    }

    /// <summary>As <see cref="DisconnectAsync"/>, but waits for no longer than <see cref="Grace"/>.</summary>
    public async ValueTask DisposeAsync()
    {
        Task leaving = DisconnectAsync(CancellationToken.None);
        try
        {
            await leaving.WaitAsync(Grace, _options.TimeProvider).ConfigureAwait(false);
        }
        catch (TimeoutException)
        {
            Fail(Disposed());
            await leaving.ConfigureAwait(false);
        }
    }

    /// <summary>The server said that it is stopping: what is in flight gets its replies, then the client leaves.</summary>
    public void LeaveSoon()
    {
        var unsent = new List<PendingCommand>();
        lock (_lock)
        {
            if (_leaving is not null || _end is not null)
            {
                return;
            }
            _leaving = LeaveAsync(NbdClientError.ServerShutdown, "The server is stopping.");
            while (_waiting.TakeFirst() is { } command)
            {
                Decide(command, command.FailureBy(_refusal!));
                unsent.Add(command);
            }
        }
        unsent.ForEach(command => command.ReleaseByConnection());
        _completions.ScheduleIfAny();
    }

    /// <summary>Ends the connection at once; every request in flight fails with this, once.</summary>
    public void Fail(NbdClientException cause)
    {
        lock (_lock)
        {
            if (_end is not null)
            {
                return;
            }
            _end = cause;
            foreach (PendingCommand? command in _places)
            {
                if (command is { IsEnded: false })
                {
                    Decide(command, command.FailureBy(cause));
                }
            }
            while (_waiting.TakeFirst() is { } command)
            {
                Decide(command, command.FailureBy(cause));
            }
            if (!_sending)
            {
                StopSending();
            }
            _drained?.TrySetResult();
            _timer?.Dispose();
        }
        // Ends the send and the receive that are under way: only then is the memory that they use the caller's again.
        Try(_aborted.Cancel);
        Try(_transport.Abort);
        _completions.ScheduleIfAny();
    }

    private void Try(Action end)
    {
        try
        {
            end();
        }
        catch (Exception e)
        {
            // A stream or pipe of the host's that does not like to be ended: nobody who called has to do with that.
            ClientLog.EndFailed(_options.LoggerFactory.CreateLogger("NbdKit.Client"), e);
        }
    }

    private async Task ReceiveAsync()
    {
        // Not on the thread of who connects.
        await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
        try
        {
            await _reader.RunAsync(_aborted.Token).ConfigureAwait(false);
            if (!HasLeft())
            {
                Fail(new NbdClientException(NbdClientError.ConnectionLost, "The server closed the connection."));
            }
        }
        catch (NbdClientException e)
        {
            Fail(e);
        }
        catch (Exception e)
        {
            // Also what the reader would throw through a defect of its own: nobody may wait for replies that nobody receives.
            Fail(new NbdClientException(NbdClientError.ConnectionLost, "The connection was lost: " + Describe(e), e));
        }
        finally
        {
            _reader.Close();
            await _transport.EndTransmissionAsync().ConfigureAwait(false);
            _completions.ScheduleIfAny();
        }
    }

    private static string Describe(Exception e)
        => e is ConnectionEndedException ? "it ended inside a message." : LogText.Clean(e.Message, 200);

    /// <summary>Begins to leave, under the lock; goes on without it.</summary>
    private async Task LeaveAsync(NbdClientError error, string message)
    {
        _refusal = new NbdClientException(error, message);
        var drained = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        _drained = drained;
        if (_live == 0)
        {
            drained.SetResult();
        }
        await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
        await drained.Task.ConfigureAwait(false);
        Task quiet = StageDisconnect();
        Send();
        await quiet.ConfigureAwait(false);
        try
        {
            // The server answers NBD_CMD_DISC by closing.
            await _receiving.WaitAsync(CloseGrace, _options.TimeProvider).ConfigureAwait(false);
        }
        catch (TimeoutException)
        {
            Try(_transport.Abort);
            await _receiving.ConfigureAwait(false);
        }
        lock (_lock)
        {
            _end ??= _refusal;
            CloseStage();
            _timer?.Dispose();
        }
        Try(_aborted.Cancel);
        await CloseTransportAsync().ConfigureAwait(false);
    }

    /// <summary>Puts NBD_CMD_DISC behind everything else; the task ends when it was sent, or never will be.</summary>
    private Task StageDisconnect()
    {
        lock (_lock)
        {
            if (_end is not null)
            {
                return Task.CompletedTask;
            }
            _left = true;
            _stage.AddDisconnect();
            _quiet = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            return _quiet.Task;
        }
    }

    private async Task CloseTransportAsync()
    {
        try
        {
            await _transport.CloseAsync().ConfigureAwait(false);
        }
        catch (Exception e) when (e is IOException or SocketException or InvalidOperationException)
        {
            // It had ended already: there is nothing left to close in order.
        }
    }

    private async Task LeaveOrAbortAsync(Task leaving, CancellationToken cancellationToken)
    {
        try
        {
            await leaving.WaitAsync(cancellationToken).ConfigureAwait(false);
        }
        catch (OperationCanceledException)
        {
            Fail(Disposed());
            await leaving.ConfigureAwait(false);
            throw;
        }
    }

    private bool HasLeft()
    {
        lock (_lock)
        {
            return _left;
        }
    }

    /// <summary>Why no request can be made now, or null. Under the lock.</summary>
    private NbdClientException? Refusal()
        => (_end ?? _refusal) is { } cause ? new NbdClientException(cause.Error, cause.Message, cause) : null;

    private static NbdClientException Disposed()
        => new(NbdClientError.ConnectionLost, "The client was closed before its requests were answered.");

    /// <summary>Gives back what was never sent. Under the lock, when nobody sends.</summary>
    private void CloseStage()
    {
        var unsent = new List<PendingCommand>();
        _stage.Close(unsent);
        foreach (PendingCommand command in unsent)
        {
            command.IsTouched = false;
            if (command.IsEnded)
            {
                _completions.Add(command);
            }
        }
        _completions.ScheduleIfAny();
    }
}
