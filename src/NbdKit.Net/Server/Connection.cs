using Microsoft.Extensions.Logging;
using NbdKit.Transports;

namespace NbdKit.Server;

/// <summary>
/// One client from its first byte to its last: handshake, then transmission, then the end with exactly one reason.
/// </summary>
internal sealed partial class Connection
{
    private readonly ServerCore _server;
    private volatile Transport _transport;
    private readonly CancellationTokenSource _aborted = new();
    private readonly CancellationTokenSource _receiving = new();
    private long _handshakeSince;
    private long _openingSince;
    private Task? _cutting;
    private NbdDisconnect? _end;
    private volatile bool _inHandshake = true;
    private volatile bool _isOpening;
    private volatile bool _refusesRequests;
    private volatile bool _stopping;

    public Connection(ServerCore server, Transport transport, long id)
    {
        _server = server;
        _transport = transport;
        _handshakeSince = server.TimeProvider.GetTimestamp();
        ReceiveStall = new StallClock(server.TimeProvider);
        RecordStall = new StallClock(server.TimeProvider);
        SendStall = new StallClock(server.TimeProvider);
        Budget = new FlowBudget(server.Options.MaxRequestsInFlight, server.Options.MaxBytesInFlight, server.Budget);
        Public = new NbdConnection(id, transport.Peer, _aborted.Token, Disconnect, server.RequestStop);
        if (transport.Tls is { } tls)
        {
            Public.BecomeEncrypted(tls.RemoteCertificate);
        }
        Input = new InputReader(transport, server.Slabs, ReceiveStall);
        Replies = new ReplyWriter(transport, server.Slabs, server.Payloads, server.Loans, Budget, SendStall);
    }

    public NbdConnection Public { get; }

    /// <summary>Whether the client has got as far as transmission.</summary>
    public bool WasServed { get; private set; }

    public ServerCore Server => _server;

    /// <summary>The handshake, if it is the host's; null for NBD's.</summary>
    public NbdTransmission? Negotiated { get; set; }

    /// <summary>How the host's own handshake failed, or null.</summary>
    public Exception? HostFault { get; set; }

    public Transport Transport => _transport;

    public InputReader Input { get; private set; }

    public ReplyWriter Replies { get; private set; }

    public FlowBudget Budget { get; }

    /// <summary>Fires when nothing more can be done for this client.</summary>
    public CancellationToken Aborted => _aborted.Token;

    /// <summary>Fires when nothing more is to be received; requests in flight go on.</summary>
    public CancellationToken Receiving => _receiving.Token;

    /// <summary>Whether requests, and options, that arrive now are refused with ESHUTDOWN.</summary>
    public bool RefusesRequests => _refusesRequests;

    /// <summary>Whether nothing is served to the client yet.</summary>
    public bool IsInHandshake => _inHandshake;

    /// <summary>Why they are refused.</summary>
    public NbdDisconnect Refusal => _stopping
        ? new NbdDisconnect(NbdDisconnectReason.ServerStopped, "the server is stopping")
        : new NbdDisconnect(NbdDisconnectReason.Disconnected, "the client was asked to leave");

    private StallClock ReceiveStall { get; }

    private StallClock RecordStall { get; }

    public StallClock SendStall { get; }

    private ILogger Logger => _server.Logger;

    /// <summary>Serves the client. Never throws.</summary>
    public async Task<NbdDisconnect> RunAsync()
    {
        Log.Connected(Logger, Public.Id, Public.Peer);
        try
        {
            await ServeAsync().ConfigureAwait(false);
        }
        catch (ConnectionEndedException e)
        {
            if (e.InnerException is not null)
            {
                Log.TransportFailed(Logger, Public.Id, e.InnerException);
            }
            End(e.Reason, e.Message);
        }
        catch (OperationCanceledException) when (_receiving.IsCancellationRequested || _aborted.IsCancellationRequested)
        {
            End(NbdDisconnectReason.ServerStopped, "the server stopped");
        }
        catch (Exception e)
        {
            if (End(NbdDisconnectReason.Faulted, LogText.Message(e)))
            {
                Log.ConnectionFaulted(Logger, Public.Id, LogText.Details(e), LogText.IfClean(e));
            }
        }
        await CloseTransportAsync().ConfigureAwait(false);
        (_transport as IDisposable)?.Dispose();
        Input.Close();
        await CancelAborted().ConfigureAwait(false);
        NbdDisconnect end = _end ?? new NbdDisconnect(NbdDisconnectReason.ClientDone, "the client said goodbye");
        Log.Disconnected(Logger, Public.Id, end.Reason, end.Detail);
        _server.Call(_server.Options.Disconnected, Public, end);
        return end;
    }

    /// <summary>Cuts the connection at once. The first reason given for its end counts.</summary>
    public void Abort(NbdDisconnectReason reason, string detail)
    {
        End(reason, detail);
        Cut();
    }

    /// <summary>Cuts the connection at once: no byte comes or goes any more, and layers are told. Never throws.</summary>
    public void Cut()
    {
        _refusesRequests = true;
        _ = CancelAborted();
        StopReceiving();
        AbortTransport();
    }

    /// <summary>The server stops: what runs may finish, what arrives is refused, and an idle client is let go.</summary>
    public void BeginStop()
    {
        _refusesRequests = true;
        _stopping = true;
        LeaveIfIdle();
    }

    /// <summary>A request has ended: if the connection is only waiting for that, it ends too.</summary>
    public void LeaveIfIdle()
    {
        // Of two who change one of these at a time, each after a look at the others, one must see what the other did.
        Interlocked.MemoryBarrier();
        // A client in its handshake is told that the server stops when it asks for something; see Handshake.
        if (_stopping && !_inHandshake && Budget.Requests == 0)
        {
            End(NbdDisconnectReason.ServerStopped, "the server stopped");
            StopReceiving();
        }
    }

    /// <summary>Cuts the connection if its client takes too long.</summary>
    public void CheckTime()
    {
        NbdServerOptions options = _server.Options;
        if (_inHandshake
            && !_isOpening
            && options.HandshakeTimeout != Timeout.InfiniteTimeSpan
            && _server.TimeProvider.GetElapsedTime(Interlocked.Read(ref _handshakeSince)) >= options.HandshakeTimeout)
        {
            Abort(NbdDisconnectReason.Timeout, "the handshake took too long");
        }
        else if ((ReceiveStall.IsStalled(options.StallTimeout) || RecordStall.IsStalled(options.StallTimeout)) && !_inHandshake)
        {
            Abort(NbdDisconnectReason.Timeout, "the client stopped inside a message");
        }
        else if (SendStall.IsStalled(options.StallTimeout))
        {
            Abort(NbdDisconnectReason.Timeout, "the client does not take its replies");
        }
    }

    /// <summary>So much time does not count, because the process did nothing meanwhile.</summary>
    /// <param name="duration">In units of the clock's timestamps.</param>
    public void Forgive(long duration)
    {
        Interlocked.Add(ref _handshakeSince, duration);
        ReceiveStall.Forgive();
        RecordStall.Forgive();
        SendStall.Forgive();
    }

    /// <summary>An export is being opened: that time is not the client's, and has a limit of its own.</summary>
    public void BeginOpening()
    {
        _openingSince = _server.TimeProvider.GetTimestamp();
        _isOpening = true;
    }

    public void EndOpening()
    {
        Interlocked.Add(ref _handshakeSince, _server.TimeProvider.GetTimestamp() - _openingSince);
        _isOpening = false;
    }

    /// <summary>Records why the connection ends; false if that was known already.</summary>
    public bool End(NbdDisconnectReason reason, string detail)
        => Interlocked.CompareExchange(ref _end, new NbdDisconnect(reason, detail), null) is null;

    private async Task ServeAsync()
    {
        if (await _server.IsExitingAsync(Aborted).ConfigureAwait(false))
        {
            throw new ConnectionEndedException(NbdDisconnectReason.ServerStopped, "the server is about to stop");
        }
        try
        {
            await _server.Backend.PreconnectAsync(Public, _server.Options.ReadOnly, Aborted).ConfigureAwait(false);
        }
        catch (Exception e)
        {
            throw new ConnectionEndedException(NbdDisconnectReason.Refused, "a layer refused the client: " + LogText.Clean(e.Message));
        }
        _server.Call(_server.Options.Connected, Public);
        ExportSession? export = await new Handshake(this).RunAsync().ConfigureAwait(false);
        if (export is null)
        {
            return;
        }
        try
        {
            _inHandshake = false;
            WasServed = true;
            _server.BeginTransmission();
            LeaveIfIdle();
            _server.Call(_server.Options.ExportOpened, Public, export.Info);
            _transport.BeginTransmission();
            Input.IsFrugal = false;
            await new Transmission(this, export).RunAsync().ConfigureAwait(false);
        }
        finally
        {
            await _transport.EndTransmissionAsync().ConfigureAwait(false);
            await CloseAsync(export.Context).ConfigureAwait(false);
        }
    }

    private async ValueTask CloseAsync(NextContext context)
    {
        try
        {
            await context.FinalizeAsync(_server.Cut).ConfigureAwait(false);
        }
        catch (Exception)
        {
            // The layer logged its failure, or the server cannot wait; closing waits for what must end.
        }
        await context.CloseAsync().ConfigureAwait(false);
    }

    private void StopReceiving()
    {
        try
        {
            _receiving.Cancel();
            _transport.StopReceiving();
        }
        catch (Exception e)
        {
            // A stream or pipe of the host's that does not like to be cancelled.
            Log.TransportFailed(Logger, Public.Id, e);
        }
        // The loop may be waiting for room, which may be in the hands of other connections.
        Budget.Wake();
    }

    private Task CancelAborted()
    {
        lock (_aborted)
        {
            return _cutting ??= _server.Cancel(_aborted);
        }
    }

    private void AbortTransport()
    {
        try
        {
            _transport.Abort();
        }
        catch (Exception e)
        {
            Log.TransportFailed(Logger, Public.Id, e);
        }
    }

    private void Disconnect(bool force)
    {
        if (force)
        {
            Abort(NbdDisconnectReason.Disconnected, "a layer disconnected the client");
        }
        else
        {
            _refusesRequests = true;
        }
    }

    private async ValueTask CloseTransportAsync()
    {
        try
        {
            if (_aborted.IsCancellationRequested)
            {
                AbortTransport();
            }
            else
            {
                await _transport.CloseAsync().ConfigureAwait(false);
            }
        }
        catch (Exception e)
        {
            Log.TransportFailed(Logger, Public.Id, e);
        }
    }
}
