using System.Text;
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
    private readonly NbdServer _server;
    private readonly bool _extended;

    public LayeredCase(Callback callback, Failure failure, Moment moment, bool extended, FailingLayer layer)
    {
        _callback = callback;
        _source = new FailureSource(callback, failure, moment);
        _plugin = new FailingPlugin(_source, callback == Callback.ReadSparse);
        _layer = layer;
        _extended = extended;
        _server = new NbdServer(NbdBackend.Compose(_plugin, layer.Filters), new NbdServerOptions { TimeProvider = _time });
    }

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
        // What hangs holds whatever the filter lets wait for it: then the server has to end with the client in the middle of it.
        await (Hangs ? Task.WhenAny(talking, _source.Entered) : Ending(talking));
        if (talking.IsCompleted)
        {
            await talking;
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
        await (_extended ? client.ExtendedAsync() : client.StructuredAsync());
        CheckMessage((await client.SetMetaAsync("", "base:allocation")).Final.Text);
        OptionResult gone = await client.TryGoAsync();
        if (!gone.IsAck)
        {
            CheckMessage(gone.Final.Text);
            await client.ExpectHagglingAsync();
            await client.FinishAsync();
            return;
        }
        for (int i = 0; i < Commands.Length; i++)
        {
            (Callback callback, ushort command) = Commands[i];
            int calls = _source.Calls;
            WireCall call = await client.SendRequestAsync(
                command,
                0,
                command == Cmd.Flush ? 0u : command == Cmd.Read ? 4096u : 512u,
                _extended && command == Cmd.Write ? CmdFlag.PayloadLength : CmdFlag.None,
                command == Cmd.Write ? new byte[512] : null);
            WireReply reply = await client.ReadReplyAsync();
            Assert.That(reply.Call, Is.EqualTo(call));
            CheckMessage(reply.Message);
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

    // What a filter reads or asks for on its own account may fail and not matter.
    private static bool IsAdvice(Callback callback) => callback is Callback.Cache or Callback.Extents or Callback.Read;

    private static void CheckMessage(string message)
    {
        Assert.That(message, Does.Not.Contain(FailureSource.Secret), "what happens inside the host is its own business");
        Assert.That(message, Does.Not.Contain("   at ").And.Not.Contain("Exception"));
        Assert.That(Encoding.UTF8.GetByteCount(message), Is.LessThanOrEqualTo(4096));
    }

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
