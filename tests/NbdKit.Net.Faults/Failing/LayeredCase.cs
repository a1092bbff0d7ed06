using NbdKit.Tests.Testing;
using NUnit.Framework;

namespace NbdKit.Faults.Failing;

/// <summary>
/// A server over a filter over a plugin one of whose callbacks fails. What a filter makes of a failure is its own: the answer is an
/// error, or what the same filter answers when nothing fails.
/// </summary>
internal sealed class LayeredCase
{
    private static readonly (Callback Callback, ushort Command)[] Commands =
    [
        (Callback.Read, Cmd.Read), (Callback.Write, Cmd.Write), (Callback.Flush, Cmd.Flush), (Callback.Trim, Cmd.Trim),
        (Callback.Zero, Cmd.WriteZeroes), (Callback.Cache, Cmd.Cache), (Callback.Extents, Cmd.BlockStatus), (Callback.Read, Cmd.Read),
    ];

    private readonly Callback _callback;
    private readonly FailureSource _source;
    private readonly FailingPlugin _plugin;
    private readonly FailingLayer _layer;
    private readonly FakeTimeProvider _time = new();
    private readonly NbdBackend _chain;
    private readonly NbdServer _server;
    private readonly bool _extended;
    private readonly bool _tls;
    private volatile bool _transmits;

    /// <summary>Prepares a case.</summary>
    /// <param name="callback">What fails.</param>
    /// <param name="failure">How.</param>
    /// <param name="moment">When.</param>
    /// <param name="extended">Whether headers are extended; else replies are structured.</param>
    /// <param name="tls">Whether the session is within TLS.</param>
    /// <param name="layer">What is between.</param>
    /// <param name="later">Whether nothing fails in the handshake.</param>
    public LayeredCase(
        Callback callback, Failure failure, Moment moment, bool extended, bool tls, FailingLayer layer, bool later = false)
    {
        _callback = callback;
        _source = new FailureSource(callback, failure, moment)
        {
            HangsOnce = callback is >= Callback.Read and <= Callback.Extents,
            IsOff = later,
        };
        _plugin = new FailingPlugin(_source, layer.Content, callback == Callback.ReadSparse);
        _layer = layer;
        _extended = extended;
        _tls = tls;
        _chain = NbdBackend.Compose(_plugin, layer.Filters);
        _server = new NbdServer(_chain, new NbdServerOptions
        {
            TimeProvider = _time,
            Tls = tls ? new NbdServerTls(TestCertificates.Server) { IsRequired = false } : null,
        });
    }

    /// <summary>Whether a request was held by a call that never completes, and others of the connection were served meanwhile.</summary>
    public bool GoesOn { get; private set; }

    private bool Hangs => _source.Failure == Failure.Never;

    /// <summary>Runs the case.</summary>
    /// <param name="right">The answers without a failure; null if this is the run that finds them.</param>
    /// <returns>The answers that succeeded: the data of reads, and nothing for others.</returns>
    public async Task<byte[]?[]> RunAsync(byte[]?[]? right)
    {
        byte[]?[] answers = new byte[Commands.Length][];
        Task starting = _server.StartAsync().AsTask();
        await (Hangs ? Task.WhenAny(starting, _source.Entered) : Ending(Task.WhenAny(starting)));
        if (!starting.IsCompletedSuccessfully)
        {
            Assert.That(_callback is Callback.GetReady or Callback.Start, "the start failed");
            await StopAsync();
            _ = starting.ContinueWith(static task => task.Exception, TaskScheduler.Default);
            return answers;
        }
        var pipes = new PipePair();
        await using var client = new WireClient(pipes.Client, _server.ServeAsync(pipes.Server));
        Task talking = TalkAsync(client, answers, right);
        // A handshake that hangs, hangs as a whole: then the server has to end with the client in the middle of it.
        await (Hangs ? Task.WhenAny(talking, _source.Entered).Soon() : Ending(talking));
        if (_transmits)
        {
            await talking.Soon();
        }
        if (talking.IsCompleted)
        {
            await talking;
        }
        if (_tls && talking.IsCompleted && !_transmits)
        {
            // The end within TLS is not that of the connection.
            await client.FinishAsync();
        }
        await StopAsync();
        _ = talking.ContinueWith(static task => task.Exception, TaskScheduler.Default);
        Assert.That(Hangs || _plugin.Closed == _plugin.Opened, $"{_plugin.Opened} contexts were opened, and {_plugin.Closed} closed");
        if (!Hangs || client.Ended.IsCompleted)
        {
            NbdDisconnect end = await client.Ended.Soon();
            Assert.That(end.Reason, Is.Not.EqualTo(NbdDisconnectReason.Faulted), end.Detail);
        }
        return answers;
    }

    private async Task TalkAsync(WireClient client, byte[]?[] answers, byte[]?[]? right)
    {
        if (_callback == Callback.Preconnect && right is not null && _source.Failure != Failure.Late)
        {
            Assert.That(await client.ReadToEndAsync(), Is.Empty, "a client that is refused hears nothing");
            return;
        }
        await client.GreetAsync();
        if (_tls)
        {
            client = await client.StartTlsAsync();
        }
        await (_extended ? client.ExtendedAsync() : client.StructuredAsync());
        FailureSource.CheckMessage((await client.SetMetaAsync("", "base:allocation")).Final.Text);
        OptionResult gone = await client.TryGoAsync();
        if (!gone.IsAck)
        {
            FailureSource.CheckMessage(gone.Final.Text);
            await client.ExpectHagglingAsync();
            await client.FinishAsync();
            return;
        }
        _transmits = true;
        if (_source.IsOff && !_layer.HoldsReads)
        {
            // What is needed everywhere, such as the first table of an image, may be read once and waited for by all.
            WireCall first = await SendAsync(client, Cmd.Read, Elsewhere(client));
            Assert.That((await client.ReadReplyAsync()).Call, Is.EqualTo(first));
        }
        _source.IsOff = false;
        for (int i = 0; i < Commands.Length; i++)
        {
            (Callback callback, ushort command) = Commands[i];
            int calls = _source.Calls;
            WireCall call = await SendAsync(client, command, 0);
            Task<WireReply> replying = client.ReadReplyAsync();
            if (Hangs && await Task.WhenAny(replying, _source.Entered) != replying)
            {
                await GoOnAsync(client, call, replying);
                return;
            }
            WireReply reply = await replying;
            Assert.That(reply.Call, Is.EqualTo(call));
            FailureSource.CheckMessage(reply.Message);
            if (reply.Error != WireError.Ok)
            {
                Assert.That(WireError.Legal, Does.Contain(reply.Error), $"{call}");
                continue;
            }
            answers[i] = command == Cmd.Read ? reply.Data : [];
            Assert.That(
                right is null || right[i] is not null && answers[i].AsSpan().SequenceEqual(right[i]), $"{call} succeeded with a wrong answer");
            // A filter that answers for itself has not asked; zeroes that cannot be made are written.
            Assert.That(
                _callback != callback || _source.Calls == calls || _layer.AnswersItself || IsAdvice(callback)
                    || _source.Expected.Contains(WireError.Ok),
                $"{call} succeeded although it had failed below");
        }
        await client.ExpectCallAsync(WireError.Inval, 99);
    }

    /// <summary>A call hangs, for a request or for the filter itself: what the client asks for elsewhere is answered.</summary>
    private async Task GoOnAsync(WireClient client, WireCall held, Task<WireReply> replying)
    {
        ulong elsewhere = Elsewhere(client);
        var open = new HashSet<WireCall> { await SendAsync(client, Cmd.Write, elsewhere), await SendAsync(client, 99, 0) };
        if (!_layer.HoldsReads)
        {
            open.Add(await SendAsync(client, Cmd.Read, elsewhere));
        }
        bool isHeld = true;
        // A chain that takes one request at a time has to wait for that one.
        while (open.Count > 0 && _chain.ThreadModel == ThreadModel.Parallel)
        {
            WireReply reply = await replying;
            isHeld &= reply.Call != held;
            Assert.That(open.Remove(reply.Call) || reply.Call == held, $"a reply to {reply.Call}");
            Assert.That(WireError.Legal.Prepend(WireError.Ok), Does.Contain(reply.Error), $"{reply.Call}");
            replying = client.ReadReplyAsync();
        }
        GoesOn = isHeld && open.Count == 0;
        // It ends with the server.
        _ = replying.ContinueWith(static task => task.Exception, TaskScheduler.Default);
    }

    private static ulong Elsewhere(WireClient client) => Math.Max(512, client.Size & ~4095ul) - 512;

    private Task<WireCall> SendAsync(WireClient client, ushort command, ulong offset) => client.SendRequestAsync(
        command,
        offset,
        command is Cmd.Flush or 99 ? 0u : command == Cmd.Read && offset == 0 ? 4096u : 512u,
        _extended && command == Cmd.Write ? CmdFlag.PayloadLength : CmdFlag.None,
        command == Cmd.Write ? new byte[512] : null);

    // What a filter reads or asks for on its own account may fail and not matter.
    private static bool IsAdvice(Callback callback) => callback is Callback.Cache or Callback.Extents or Callback.Read;

    private Task Ending(Task task)
    {
        if (_source.Failure == Failure.Late)
        {
            // Late, and not before it was asked.
            _ = _source.Entered.ContinueWith(_ => _source.Release(), TaskScheduler.Default);
        }
        return task.Soon();
    }

    private async Task StopAsync()
    {
        await (Hangs ? _time.AdvanceUntilAsync(_server.StopAsync()) : _server.StopAsync().Soon());
        await _server.DisposeAsync().AsTask().Soon();
    }
}
