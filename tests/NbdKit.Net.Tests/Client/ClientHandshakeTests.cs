using NbdKit.Client;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Client;

/// <summary>Limits of time and size, cancellation, and connections that end at any point.</summary>
[Parallelizable(ParallelScope.All)]
public sealed class ClientHandshakeTests : HandshakeTest
{
    private static readonly uint[] Options = [Opt.ExtendedHeaders, Opt.StructuredReply, Opt.SetMeta, Opt.Go];

    [Test, Property("Rule", "C022")]
    public async Task Endless_replies_end_at_a_limit_C022([Values(Opt.List, Opt.Go, Opt.SetMeta)] uint option)
    {
        byte[] reply = option switch
        {
            Opt.List => ScriptedServer.Server("x", "y"),
            Opt.Go => ScriptedServer.Info(Opt.Go, 0x7777),
            _ => [],
        };
        var server = new ScriptedServer();
        server.Answer(option, _ => option == Opt.SetMeta
            ? [.. Enumerable.Range(0, 1025).SelectMany(i => ScriptedServer.Context(Opt.SetMeta, (uint)i, "a:" + i))]
            : [.. Enumerable.Repeat(reply, 10_001).SelectMany(r => r)]);

        NbdClientException failure = Assert.ThrowsAsync<NbdClientException>(async () =>
        {
            await using NbdHandshake handshake = await BeginAsync(server);
            await (option == Opt.List ? (Task)handshake.ListAsync() : handshake.GoAsync("", default)).Soon();
        })!;

        Assert.That(failure.Error, Is.EqualTo(NbdClientError.LimitExceeded));
        await server.Ended.Soon();
    }

    [Test, Property("Rule", "C022")]
    public async Task Large_replies_end_at_a_limit_C022()
    {
        byte[] reply = ScriptedServer.Server(new string('n', 4096), new string('d', 4096));
        var server = new ScriptedServer();
        server.Answer(Opt.List, _ => [.. Enumerable.Repeat(reply, 2100).SelectMany(r => r)]);
        await using NbdHandshake handshake = await BeginAsync(server);

        NbdClientException failure = Assert.ThrowsAsync<NbdClientException>(() => handshake.ListAsync().Soon())!;

        Assert.That(failure.Error, Is.EqualTo(NbdClientError.LimitExceeded));
    }

    [Test, Property("Rule", "C022"), Property("Rule", "C086")]
    public async Task A_silent_server_is_given_up_when_the_time_is_over_C022_C086([ValueSource(nameof(Options))] uint option)
    {
        var time = new FakeTimeProvider();
        var asked = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        var server = new ScriptedServer();
        server.Answer(option, _ =>
        {
            asked.SetResult();
            return [];
        });

        Task<ClientSession> connecting = ConnectAsync(
            server, new NbdClientOptions { TimeProvider = time, HandshakeTimeout = TimeSpan.FromSeconds(5) });
        await asked.Task.Soon();
        time.Advance(TimeSpan.FromSeconds(4.9));
        Assert.That(connecting.IsCompleted, Is.False);
        time.Advance(TimeSpan.FromSeconds(0.1));

        Assert.That(Assert.ThrowsAsync<NbdClientException>(() => connecting)!.Error, Is.EqualTo(NbdClientError.Timeout));
        await server.Ended.Soon();
        Assert.That(server.Trace.Last(), Is.EqualTo(option));
    }

    [Test, Property("Rule", "C022")]
    public async Task Bytes_that_trickle_do_not_stop_the_clock_C022()
    {
        var time = new FakeTimeProvider();
        var pipes = new PipePair();
        Task<ClientSession> connecting = ClientConnector.ConnectAsync(
            pipes.Client, new NbdClientOptions { TimeProvider = time, HandshakeTimeout = TimeSpan.FromSeconds(5) }, default);
        byte[] greeting = new WireBytes().U64(Magic.Nbd).U64(Magic.IHaveOpt).U16(3).ToArray();
        foreach (byte b in greeting[..16])
        {
            await pipes.Server.Output.WriteAsync(new[] { b });
            time.Advance(TimeSpan.FromMilliseconds(400));
        }

        Assert.That(
            Assert.ThrowsAsync<NbdClientException>(() => connecting.Soon())!.Error, Is.EqualTo(NbdClientError.Timeout));
    }

    [Test]
    public async Task A_call_that_is_cancelled_ends_the_connection([ValueSource(nameof(Options))] uint option)
    {
        using var cancellation = new CancellationTokenSource();
        var server = new ScriptedServer();
        server.Answer(option, _ =>
        {
            cancellation.Cancel();
            return [];
        });

        OperationCanceledException canceled = Assert.CatchAsync<OperationCanceledException>(
            () => ConnectAsync(server, cancellationToken: cancellation.Token))!;

        Assert.That(canceled.CancellationToken, Is.EqualTo(cancellation.Token));
        await server.Ended.Soon();
        Assert.That(server.Trace.Last(), Is.EqualTo(option));
    }

    [Test, Property("Rule", "CVE_2021_20286"), Property("Rule", "C085")]
    [Property("Threat", "CVE-2021-20286")]
    public async Task A_server_that_dies_anywhere_is_a_lost_connection_C085_CVE_2021_20286(
        [ValueSource(nameof(Options))] uint option, [Values] bool optionMode)
    {
        byte[] whole = new ScriptedServer().Answers[option]([])!;
        for (int length = 0; length < whole.Length; length++)
        {
            // The server says all that it would have said, and is gone.
            var ending = new ScriptedServer { Greeting = AllBefore(option, whole[..length]), EndsAfterGreeting = true };
            NbdClientException failure = Assert.ThrowsAsync<NbdClientException>(async () =>
            {
                if (!optionMode)
                {
                    await ConnectAsync(ending);
                    return;
                }
                await using NbdHandshake handshake = await BeginAsync(ending);
                await handshake.GoAsync("", default).Soon();
            })!;
            Assert.That(failure.Error, Is.EqualTo(NbdClientError.ConnectionLost), $"{length} bytes: {failure}");
        }
    }

    [Test]
    public async Task Whatever_a_server_says_the_client_ends_well([Values(1, 2, 3, 4)] int seed)
    {
        var random = new Random(seed);
        byte[] whole = AllBefore(0, []);
        for (int i = 0; i < 500; i++)
        {
            byte[] said = [.. whole];
            for (int changes = random.Next(1, 4); changes > 0; changes--)
            {
                said[random.Next(said.Length)] = random.Next(3) switch
                {
                    0 => (byte)random.Next(256),
                    1 => 0,
                    _ => 0xff,
                };
            }
            var server = new ScriptedServer { Greeting = said[..random.Next(18, said.Length + 1)], EndsAfterGreeting = true };
            try
            {
                (await ConnectAsync(server)).Transport.Abort();
            }
            catch (NbdClientException e)
            {
                Assert.That(e.Error, Is.Not.EqualTo(NbdClientError.Timeout), $"seed {seed}, round {i}: {e}");
            }
            await server.Ended.Soon();
        }
    }

    [Test]
    public async Task What_is_no_connection_is_refused_before_it_is_touched()
    {
        using var readOnly = new MemoryStream([1, 2, 3], writable: false);
        Assert.ThrowsAsync<ArgumentException>(() => ClientConnector.ConnectAsync(readOnly, new NbdClientOptions(), default));
        Assert.That(readOnly.Position, Is.Zero);

        using SocketPair pair = await SocketPair.CreateAsync(tcp: true);
        pair.Client.Close();
        Assert.ThrowsAsync<ArgumentException>(() => ClientConnector.ConnectAsync(pair.Client, new NbdClientOptions(), default));
    }

    /// <summary>All that a server says up to a part of its answer to an option.</summary>
    private static byte[] AllBefore(uint option, byte[] part)
    {
        var server = new ScriptedServer();
        byte[] greeting = new WireBytes().U64(Magic.Nbd).U64(Magic.IHaveOpt).U16(3).ToArray();
        return
        [
            .. greeting, .. Options.TakeWhile(o => o != option).SelectMany(before => server.Answers[before]([])!), .. part,
        ];
    }
}
