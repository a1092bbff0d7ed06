using NbdKit.Tests.Testing;
using NUnit.Framework;

namespace NbdKit.Faults.Failing;

/// <summary>A server over a plugin one of whose callbacks fails, from its start to its stop, with one client.</summary>
internal sealed class FailureCase
{
    private readonly Callback _callback;
    private readonly FailureSource _source;
    private readonly FailingPlugin _plugin;
    private readonly FakeTimeProvider _time = new();
    private readonly RecordingLog _log = new();
    private readonly NbdServer _server;
    private readonly bool _structured;
    private readonly bool _extended;
    private readonly bool _tls;

    /// <summary>Prepares a case.</summary>
    /// <param name="callback">What fails.</param>
    /// <param name="failure">How.</param>
    /// <param name="moment">When.</param>
    /// <param name="form">0 simple replies, 1 structured ones, 2 extended headers.</param>
    /// <param name="tls">Whether the session is within TLS.</param>
    public FailureCase(Callback callback, Failure failure, Moment moment, int form, bool tls = false)
    {
        _tls = tls;
        _callback = callback;
        _source = new FailureSource(callback, failure, moment);
        _plugin = new FailingPlugin(_source, new byte[FailingHandle.Size], callback == Callback.ReadSparse);
        _structured = form == 1;
        _extended = form == 2;
        _server = new NbdServer(NbdBackend.Compose(_plugin), new NbdServerOptions
        {
            TimeProvider = _time,
            LoggerFactory = _log,
            Tls = tls ? new NbdServerTls(TestCertificates.Server) { IsRequired = false } : null,
            // Where something else has a limit, time that is not real must not pass faster than the threads that wait for that.
            HandshakeTimeout = callback is Callback.Preconnect or Callback.ListExports ? TimeSpan.FromSeconds(10) : Timeout.InfiniteTimeSpan,
        });
    }

    private bool Hangs => _source.Failure == Failure.Never;

    private bool Succeeds => _source.Failure == Failure.Late;

    public async Task RunAsync()
    {
        if (_callback is Callback.GetReady or Callback.Start)
        {
            await FailToStartAsync();
            return;
        }
        if (_callback is not (Callback.Read or Callback.ReadSparse or Callback.Write or Callback.Flush or Callback.Trim or Callback.Zero
            or Callback.Cache or Callback.Extents))
        {
            // Nothing else waits for it.
            _source.Release();
        }
        await _server.StartAsync().AsTask().Soon();
        var pipes = new PipePair();
        await using var client = new WireClient(pipes.Client, _server.ServeAsync(pipes.Server));
        if (await HandshakeAsync(client) is { } inside)
        {
            await TransmitAsync(inside);
        }
        else if (_tls)
        {
            // The end within TLS is not that of the connection.
            await client.FinishAsync();
        }
        await StopAsync();
        // A request that never completes keeps its context.
        Assert.That(Hangs || _plugin.Closed == _plugin.Opened, $"{_plugin.Opened} contexts were opened, and {_plugin.Closed} closed");
        if (client.Ended.IsCompleted)
        {
            NbdDisconnect end = await client.Ended;
            Assert.That(end.Reason, Is.Not.EqualTo(NbdDisconnectReason.Faulted), end.Detail);
        }
    }

    private async Task FailToStartAsync()
    {
        Task starting = _server.StartAsync().AsTask();
        if (Succeeds)
        {
            _source.Release();
            await starting.Soon();
        }
        else if (!Hangs)
        {
            Assert.CatchAsync(() => starting.Soon(), "the host is told that the start failed");
        }
        await StopAsync();
        _ = starting.ContinueWith(static task => task.Exception, TaskScheduler.Default);
    }

    /// <summary>The client, if it got as far as the transmission phase.</summary>
    private async Task<WireClient?> HandshakeAsync(WireClient client)
    {
        if (_callback == Callback.Preconnect && !Succeeds)
        {
            Task<byte[]> silence = client.ReadToEndAsync();
            await Ending(silence);
            Assert.That(await silence, Is.Empty, "a client that is refused hears nothing");
            return null;
        }
        await client.GreetAsync();
        if (_tls)
        {
            client = await client.StartTlsAsync();
        }
        if (_callback == Callback.ListExports && Hangs)
        {
            await client.SendOptionAsync(Opt.List);
            await _time.AdvanceUntilAsync(client.ReadToEndAsync());
            return null;
        }
        OptionResult list = await client.OptAsync(Opt.List);
        Check(list, _callback == Callback.ListExports);
        if (_extended)
        {
            await client.ExtendedAsync();
        }
        else if (_structured)
        {
            await client.StructuredAsync();
        }
        bool opens = _callback is Callback.DefaultExport or Callback.Open or Callback.GetInfo;
        if (_structured || _extended)
        {
            Check(await Timely(client.SetMetaAsync("", "base:allocation")), opens);
        }
        OptionResult gone = await Timely(client.TryGoAsync());
        Check(gone, opens);
        if (gone.IsAck)
        {
            return client;
        }
        await client.ExpectHagglingAsync();
        // In a handshake a client is told of a stop when it asks for something: it would hold it.
        await client.FinishAsync();
        return null;
    }

    private async Task TransmitAsync(WireClient client)
    {
        (Callback Callback, ushort Command)[] commands =
        [
            (_callback == Callback.ReadSparse && (_structured || _extended) ? Callback.ReadSparse : Callback.Read, Cmd.Read),
            (Callback.Write, Cmd.Write), (Callback.Flush, Cmd.Flush), (Callback.Trim, Cmd.Trim), (Callback.Zero, Cmd.WriteZeroes),
            (Callback.Cache, Cmd.Cache), (Callback.Extents, Cmd.BlockStatus),
        ];
        int failing = 0;
        foreach ((Callback callback, ushort command) in commands)
        {
            if (command == Cmd.BlockStatus && !_structured && !_extended)
            {
                continue;
            }
            WireCall call = await client.SendRequestAsync(
                command,
                0,
                command == Cmd.Flush ? 0u : command == Cmd.Read ? 32_768u : 512u,
                _extended && command == Cmd.Write ? CmdFlag.PayloadLength : CmdFlag.None,
                command == Cmd.Write ? new byte[512] : null);
            if (callback == _callback && (Hangs || Succeeds))
            {
                failing++;
                continue;
            }
            CheckReply(call, await client.ReadReplyAsync(), callback == _callback);
        }
        if (failing > 0 && Succeeds)
        {
            _source.Release();
            Assert.That((await client.ReadReplyAsync()).Error, Is.Zero);
        }
        await client.ExpectCallAsync(WireError.Inval, 99);
    }

    private void CheckReply(WireCall call, WireReply reply, bool fails)
    {
        Assert.That(reply.Call, Is.EqualTo(call));
        Assert.That(fails ? _source.Expected : [WireError.Ok], Does.Contain(reply.Error), $"{call}: {reply.Message}");
        FailureSource.CheckMessage(reply.Message ?? "");
    }

    private void Check(OptionResult result, bool mayFail)
    {
        if (!result.IsAck)
        {
            Assert.That(mayFail && !Succeeds, $"{result.Final}: {result.Final.Text}");
            FailureSource.CheckMessage(result.Final.Text);
        }
    }

    private async Task<T> Timely<T>(Task<T> task)
    {
        // Time must not pass faster than TLS works, unless it is what ends the waiting.
        await (_callback is Callback.DefaultExport or Callback.Open or Callback.GetInfo ? Ending(task) : task.Soon());
        return await task;
    }

    private Task Ending(Task task) => Hangs ? _time.AdvanceUntilAsync(task) : task.Soon();

    private async Task StopAsync()
    {
        // A client that does nothing does not hold it, only what hangs does.
        await Ending(_server.StopAsync());
        await _server.DisposeAsync().AsTask().Soon();
    }
}
