using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public sealed class TimeLimitFilterTests
{
    private readonly FakeTimeProvider _time = new();
    private readonly RecordingPlugin _plugin = new(new CallRecorder());

    [Test]
    public async Task A_connection_is_cut_when_its_time_is_over_even_if_it_does_nothing([Values] bool inHandshake)
    {
        await using ChainServer server = await StartAsync(new TimeLimitFilter { TimeProvider = _time });
        WireClient client = inHandshake ? await server.HaggleAsync() : await server.TransmitAsync("");
        _time.Advance(TimeSpan.FromSeconds(59.9));
        WireClient later = await server.TransmitAsync("");
        if (!inHandshake)
        {
            await client.ExpectAliveAsync(null);
        }
        _time.Advance(TimeSpan.FromSeconds(0.1));
        await client.ExpectGoneAsync(NbdDisconnectReason.Disconnected);
        await later.ExpectAliveAsync(null);
    }

    [Test]
    public async Task A_client_that_leaves_leaves_no_timer()
    {
        await using ChainServer server = await StartAsync(
            new TimeLimitFilter { Idle = TimeSpan.FromSeconds(1), TimeProvider = _time });
        WireClient client = await server.TransmitAsync("");
        Assert.That(_time.PendingTimers, Is.EqualTo(2));
        await client.CutAsync();
        await client.ExpectEndAsync();
        Assert.That(_time.PendingTimers, Is.Zero);
    }

    [Test]
    public async Task Each_request_gives_an_idle_client_new_time()
    {
        await using ChainServer server = await StartAsync(
            new TimeLimitFilter { Total = TimeSpan.Zero, Idle = TimeSpan.FromSeconds(10), TimeProvider = _time });
        WireClient client = await server.TransmitAsync("");
        for (int i = 0; i < 5; i++)
        {
            _time.Advance(TimeSpan.FromSeconds(9.9));
            await client.ExpectAliveAsync(null);
        }
        _time.Advance(TimeSpan.FromSeconds(9.9));
        Assert.That(client.Ended.IsCompleted, Is.False);
        _time.Advance(TimeSpan.FromSeconds(0.1));
        await client.ExpectGoneAsync(NbdDisconnectReason.Disconnected);
    }

    [Test]
    public async Task A_client_whose_request_is_under_way_is_not_idle([Values] bool fails)
    {
        var gate = new Gate();
        _plugin.Script.OnCall = async (call, token) =>
        {
            if (call.Callback == "read")
            {
                await gate.PassAsync(token);
                if (fails)
                {
                    throw new NbdException(NbdError.IoError, "on purpose");
                }
            }
        };
        await using ChainServer server = await StartAsync(
            new TimeLimitFilter { Total = TimeSpan.Zero, Idle = TimeSpan.FromSeconds(10), TimeProvider = _time });
        WireClient client = await server.TransmitAsync("");
        await client.SendRequestAsync(Cmd.Read, 0, 512);
        await gate.ArrivedAsync();
        _time.Advance(TimeSpan.FromSeconds(100));
        gate.Open();
        Assert.That((await client.ReadReplyAsync()).Error, Is.EqualTo(fails ? WireError.Io : WireError.Ok));
        _time.Advance(TimeSpan.FromSeconds(9.9));
        Assert.That(client.Ended.IsCompleted, Is.False);
        _time.Advance(TimeSpan.FromSeconds(20));
        await client.ExpectGoneAsync(NbdDisconnectReason.Disconnected);
    }

    [Test]
    public async Task A_limit_of_zero_is_none_and_the_host_has_none()
    {
        await using ChainServer server = await StartAsync(new TimeLimitFilter { Total = TimeSpan.Zero, TimeProvider = _time });
        WireClient client = await server.TransmitAsync("");
        _time.Advance(TimeSpan.FromDays(1000));
        await client.ExpectAliveAsync(null);
        Assert.That(_time.PendingTimers, Is.Zero);
    }

    [Test]
    public void Wrong_settings_are_refused()
    {
        Assert.That(() => new TimeLimitFilter { Total = TimeSpan.FromDays(50) }, Throws.InstanceOf<ArgumentOutOfRangeException>());
        Assert.That(() => new TimeLimitFilter { Idle = TimeSpan.FromSeconds(-1) }, Throws.InstanceOf<ArgumentOutOfRangeException>());
    }

    private Task<ChainServer> StartAsync(TimeLimitFilter filter) => ChainServer.StartAsync(NbdBackend.Compose(_plugin, filter));
}
