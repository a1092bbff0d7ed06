using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Server;

/// <summary>The memory of large payloads: returned exactly once, however a request ends.</summary>
[NonParallelizable]
public sealed class PayloadMemoryTests
{
    // More than one receive brings.
    private const int Large = 300_000;
    private static readonly CancellationToken None = CancellationToken.None;

    private RecordedChain _chain = null!;
    private ChainServer _server = null!;
    private RentedArrays _arrays = null!;
    private Gate _gate = null!;

    [SetUp]
    public async Task Serve()
    {
        _chain = new RecordedChain(4 << 20, []);
        _gate = new Gate();
        _server = await ChainServer.StartAsync(_chain.Backend);
        _arrays = new RentedArrays(65_536);
    }

    [TearDown]
    public async Task Stop()
    {
        _gate.Open();
        await _server.DisposeAsync();
        _arrays.Dispose();
    }

    [TestCase(false)]
    [TestCase(true)]
    public async Task Requests_that_succeed_at_once_and_later(bool later)
    {
        if (later)
        {
            _chain.Plugin.Script.OnCall = async (_, _) => await Task.Yield();
        }
        WireClient client = await _server.TransmitAsync();
        byte[] data = [.. Enumerable.Range(0, Large).Select(i => (byte)i)];
        await client.WriteDataAsync(5, data);
        Assert.That((await client.ReadDataAsync(5, Large)).AsSpan().SequenceEqual(data));
        await StopAndBalanceAsync();
    }

    [TestCase(false)]
    [TestCase(true)]
    public async Task Requests_that_fail_at_once_and_later(bool later)
    {
        if (later)
        {
            _chain.Plugin.Script.OnCall = async (_, _) => await Task.Yield();
        }
        WireClient client = await _server.TransmitAsync();
        _chain.Plugin.Script.Fail("read");
        _chain.Plugin.Script.Fail("write");
        await client.ExpectCallAsync(Errno.Io, Cmd.Read, 0, Large);
        await client.ExpectCallAsync(Errno.Io, Cmd.Write, 0, Large, payload: new byte[Large]);
        await StopAndBalanceAsync();
    }

    [Test]
    [Property("Threat", "N04")]
    public async Task A_write_whose_client_vanishes_inside_its_payload()
    {
        WireClient client = await _server.TransmitAsync();
        byte[] message = [.. WireBytes.Request(Cmd.Write, 1, 0, Large), .. new byte[100]];
        await client.SendAsync(message);
        await client.FinishAsync();
        await client.ExpectEndAsync(NbdDisconnectReason.ConnectionLost);
        Assert.That(_chain.Calls.Count("plugin", "write"), Is.Zero);
        await StopAndBalanceAsync();
    }

    [TestCase(true)]
    [TestCase(false)]
    [Property("Threat", "N04")]
    public async Task Requests_in_flight_of_a_connection_that_is_cut(bool write)
    {
        _chain.Plugin.Script.OnCall = (call, _) => call.Callback is "read" or "write" ? _gate.PassAsync(None) : default;
        WireClient client = await _server.TransmitAsync();
        await client.SendRequestAsync(write ? Cmd.Write : Cmd.Read, 0, Large, payload: write ? new byte[Large] : null);
        await _gate.ArrivedAsync();
        _server.Server.Connections.Single().Disconnect(force: true);
        Assert.That(client.Ended.IsCompleted, Is.False, "the layer still uses the memory");
        _gate.Open();
        await client.ExpectEndAsync(NbdDisconnectReason.Disconnected);
        await StopAndBalanceAsync();
    }

    [Test]
    [Property("Threat", "N04")]
    public async Task Replies_that_nobody_takes()
    {
        WireClient client = _server.Connect(pipes: new PipePair(serverOutputLimit: 1024));
        await client.GreetAsync();
        await client.GoAsync("disk");
        for (int i = 0; i < 8; i++)
        {
            await client.SendRequestAsync(Cmd.Read, 0, Large);
        }
        await client.ReadAsync(16 + 1000);
        _server.Server.Connections.Single().Disconnect(force: true);
        await client.ExpectEndAsync(NbdDisconnectReason.Disconnected);
        await StopAndBalanceAsync();
    }

    [Test]
    public async Task Emulated_caching()
    {
        _chain.Plugin.Info = (_, info) => info with { CanCache = Support.Emulate };
        WireClient client = await _server.TransmitAsync();
        await client.ExpectCallAsync(Errno.Ok, Cmd.Cache, 0, 3 << 20);
        _chain.Plugin.Script.Fail("read");
        await client.ExpectCallAsync(Errno.Io, Cmd.Cache, 0, 3 << 20);
        await StopAndBalanceAsync();
    }

    private async Task StopAndBalanceAsync()
    {
        await _server.DisposeAsync();
        _arrays.AssertBalanced();
    }
}
