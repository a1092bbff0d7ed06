using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Conformance;

/// <summary>
/// What clients see of a server that stops ("Terminating the transmission phase", "Termination during option haggling").
/// </summary>
public sealed class ShutdownTests : WireTest
{
    [Test, Property("Rule", "S028")]
    public async Task S028_A_client_in_haggling_is_told_that_the_server_stops_and_may_still_abort()
    {
        ServerFixture server = await ServeAsync(options: new NbdServerOptions { MaxOptions = 100_000, TimeProvider = new FakeTimeProvider() });
        WireClient client = await server.HaggleAsync();

        Task stopping = server.Server.StopAsync();
        await UntilStoppingAsync(client);

        await client.ExpectOptAsync(Rep.Shutdown, Opt.List);
        await client.ExpectOptAsync(Rep.Shutdown, Opt.Go, WireBytes.InfoRequest([]));
        await client.ExpectOptAsync(Rep.Shutdown, 0x77, new byte[5000]);
        await client.ExpectOptAsync(Rep.Ack, Opt.Abort);
        await client.ExpectGoneAsync(NbdDisconnectReason.ClientDone);
        await stopping.WaitAsync(WireClient.Deadline);
        Assert.That(server.Plugin.Opened, Is.Zero);
    }

    [Test, Property("Rule", "S028")]
    public async Task S028_EXPORT_NAME_to_a_server_that_stops_ends_the_connection()
    {
        ServerFixture server = await ServeAsync(options: new NbdServerOptions { MaxOptions = 100_000, TimeProvider = new FakeTimeProvider() });
        WireClient client = await server.HaggleAsync();
        Task stopping = server.Server.StopAsync();
        await UntilStoppingAsync(client);

        await client.SendOptionAsync(Opt.ExportName);

        await client.ExpectGoneAsync(NbdDisconnectReason.ServerStopped);
        await stopping.WaitAsync(WireClient.Deadline);
    }

    [Test, Property("Rule", "S028"), Property("Rule", "S245")]
    public async Task S028_S245_A_silent_client_in_haggling_is_cut_after_the_time_to_stop()
    {
        var clock = new FakeTimeProvider();
        ServerFixture server = await ServeAsync(
            new TestPlugin(), new NbdServerOptions { TimeProvider = clock, HandshakeTimeout = TimeSpan.FromHours(1) });
        WireClient client = await server.HaggleAsync();
        await client.ExpectHagglingAsync();

        Task stopping = server.Server.StopAsync();
        while (!stopping.IsCompleted)
        {
            clock.Advance(TimeSpan.FromSeconds(1));
            await Task.Yield();
        }

        await client.ExpectGoneAsync(NbdDisconnectReason.ServerStopped);
    }

    [TestCase(false)]
    [TestCase(true)]
    [Property("Rule", "S176"), Property("Rule", "S245"), Property("Rule", "S182")]
    public async Task S176_S245_S182_Requests_in_flight_finish_and_later_ones_are_told_that_the_server_stops(bool structured)
    {
        var gate = new Gate();
        ServerFixture server = await ServeAsync(new TestExport { Before = call => call.Offset > 0 ? gate.PassAsync() : default });
        WireClient client = await server.TransmitAsync(meta: structured);
        WireCall write = await client.SendRequestAsync(Cmd.Write, 512, 512, payload: new byte[512]);
        await gate.ArrivedAsync();
        // Counted as in flight before the next one is served, but not yet when the plugin gets it.
        await client.ExpectCallAsync(WireError.Ok, Cmd.Read, 0, 1);

        Task stopping = server.Server.StopAsync();
        WireReply reply;
        do
        {
            reply = await client.CallAsync(Cmd.Read, 0, 1);
        }
        while (reply.Error == 0);
        Assert.That(reply.Error, Is.EqualTo(WireError.Shutdown));
        await client.ExpectCallAsync(WireError.Shutdown, Cmd.Write, 0, 100_000, payload: new byte[100_000]);
        await client.ExpectCallAsync(WireError.Shutdown, Cmd.Flush);
        await client.ExpectCallAsync(WireError.Shutdown, Cmd.BlockStatus, 0, 512);
        Assert.That(stopping.IsCompleted, Is.False, "a request is in flight");
        gate.Open();

        WireReply last = await client.ReadReplyAsync();
        Assert.That((last.Call, last.Error), Is.EqualTo((write, WireError.Ok)));
        await client.ExpectGoneAsync(NbdDisconnectReason.ServerStopped);
        await stopping.WaitAsync(WireClient.Deadline);
        Assert.That(server.Plugin.Data[512..1024], Is.All.Zero);
    }

    [Test, Property("Rule", "S245")]
    public async Task S245_Idle_clients_are_let_go_at_once()
    {
        var clock = new FakeTimeProvider();
        ServerFixture server = await ServeAsync(new TestPlugin(), new NbdServerOptions { TimeProvider = clock });
        WireClient[] clients = [await server.TransmitAsync(), await server.TransmitAsync(structured: true)];
        foreach (WireClient client in clients)
        {
            await client.ExpectAliveAsync(null);
        }

        // The clock stands still: nobody waits for it.
        await server.Server.StopAsync().WaitAsync(WireClient.Deadline);

        foreach (WireClient client in clients)
        {
            await client.ExpectGoneAsync(NbdDisconnectReason.ServerStopped);
        }
    }

    [TestCase(false)]
    [TestCase(true)]
    [Property("Rule", "S245"), Property("Rule", "S176")]
    public async Task S245_S176_Requests_that_do_not_finish_in_time_are_cancelled_and_the_connection_is_cut(bool atOnce)
    {
        var clock = new FakeTimeProvider();
        var gate = new Gate();
        ServerFixture server = await ServeAsync(
            new TestPlugin(new TestExport { Before = call => gate.PassAsync(call.CancellationToken) }),
            new NbdServerOptions { TimeProvider = clock });
        WireClient client = await server.TransmitAsync();
        await client.SendRequestAsync(Cmd.Read, 0, 512);
        await gate.ArrivedAsync();

        Task stopping = server.Server.StopAsync(new CancellationToken(canceled: atOnce));
        while (!atOnce && !stopping.IsCompleted)
        {
            clock.Advance(TimeSpan.FromSeconds(1));
            await Task.Yield();
        }
        await stopping.WaitAsync(WireClient.Deadline);

        // The reply to what was cancelled may still have got out, whole.
        byte[] rest = await client.ReadToEndAsync();
        Assert.That(rest, Has.Length.EqualTo(0).Or.Length.EqualTo(16));
        await client.ExpectEndAsync(NbdDisconnectReason.ServerStopped);
    }

    [Test, Property("Rule", "S245")]
    public async Task S245_A_client_that_comes_while_the_server_stops_is_turned_away()
    {
        ServerFixture server = await ServeAsync();
        await server.Server.StopAsync();
        await server.Server.StopAsync();

        var pipes = new PipePair();
        Task<NbdDisconnect> serving = server.Server.ServeAsync(pipes.Server);

        Assert.That(async () => await serving.WaitAsync(WireClient.Deadline), Throws.InstanceOf<ObjectDisposedException>());
        Assert.That((await pipes.Client.Input.ReadAsync()).Buffer.IsEmpty);
    }

    private static async Task UntilStoppingAsync(WireClient client)
    {
        OptionResult result;
        do
        {
            result = await client.OptAsync(Opt.List, [1]);
        }
        while (result.Type == Rep.Invalid);
        Assert.That(result.Type, Is.EqualTo(Rep.Shutdown));
    }
}
