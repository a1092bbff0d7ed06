using System.IO.Pipelines;
using System.Net.Security;
using System.Security.Authentication;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Conformance;

/// <summary>Whole sessions inside TLS, over every transport, and how they end.</summary>
public sealed class TlsSessionTests : WireTest
{
    private static readonly NbdServerOptions Required = new() { Tls = new NbdServerTls(TestCertificates.Server) };

    [Test, Property("Threat", "nbd-server-425235a")]
    public async Task A_session_inside_tls_is_the_same_as_in_plain_text()
    {
        int seed = TestContext.CurrentContext.Random.Next();
        TestContext.Out.WriteLine($"seed {seed}");
        ServerFixture server = await ServeAsync(WireSession.Plugin());
        string plain = await new WireSession().RunAsync(server.Connect());
        foreach (bool blocking in new[] { false, true })
        {
            ServerFixture other = await ServeAsync(WireSession.Plugin(blocking: blocking));
            WireClient inside = await ConnectInsideAsync(other.Server, new Random(seed));
            string encrypted = await new WireSession().RunAsync(inside);
            // STARTTLS inside TLS has an answer of its own.
            Assert.That(WithoutStartTls(encrypted), Is.EqualTo(WithoutStartTls(plain)));
            inside.Tap!.ExpectRecords();
        }
    }

    [TestCase(false), TestCase(true)]
    public async Task Starttls_works_over_sockets(bool tcp)
    {
        ServerFixture server = await ServeAsync(new TestExport(size: 4 << 20), Required);
        using SocketPair sockets = await SocketPair.CreateAsync(tcp);
        await using var client = new WireClient(sockets, server.Server.ServeAsync(sockets.Server));
        await client.GreetAsync();
        WireClient inside = await client.StartTlsAsync();
        await inside.StructuredAsync();
        await inside.GoAsync();
        byte[] data = TestData.Random(3 << 20);
        await inside.WriteDataAsync(77, data);
        Assert.That((await inside.ReadDataAsync(77, (uint)data.Length)).AsSpan().SequenceEqual(data));
        await inside.SendRequestAsync(Cmd.Disc);
        await inside.ExpectGoneAsync(NbdDisconnectReason.ClientDone);
        inside.Tap!.ExpectRecords();
    }

    [TestCase(false), TestCase(true)]
    [Property("Rule", "N05")]
    [Property("Threat", "N05")]
    public async Task N05_64_replies_at_a_time_through_a_stream_that_splits_writes_keep_the_grammar(bool structured)
    {
        int seed = TestContext.CurrentContext.Random.Next();
        TestContext.Out.WriteLine($"seed {seed}");
        var random = new Random(seed);
        var export = new TestExport(size: 4 << 20) { Configure = info => info with { IsBlocking = true } };
        var started = new SemaphoreSlim(0);
        var go = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        export.Before = async _ =>
        {
            started.Release();
            await go.Task;
        };
        ServerFixture server = await ServeAsync(export, Required);
        var pipes = new PipePair();
        var stream = new SplittingStream(Duplex(pipes.Server), random);
        await using var client = new WireClient(pipes.Client, server.Server.ServeAsync(stream));
        await client.GreetAsync();
        WireClient inside = await client.StartTlsAsync();
        if (structured)
        {
            await inside.StructuredAsync();
        }
        await inside.GoAsync();
        for (int i = 0; i < 64; i++)
        {
            await inside.SendRequestAsync(Cmd.Read, (ulong)random.Next(2 << 20), (uint)random.Next(1, i % 8 == 0 ? 1 << 20 : 20_000));
        }
        for (int i = 0; i < 64; i++)
        {
            Assert.That(await started.WaitAsync(WireClient.Deadline), "all of them run at a time");
        }
        go.SetResult();

        for (int i = 0; i < 64; i++)
        {
            WireReply reply = await inside.ReadReplyAsync();
            Assert.That(
                reply.Data.AsSpan().SequenceEqual(export.Data.AsSpan((int)reply.Call.Offset, (int)reply.Call.Length)), $"{reply.Call}");
        }
        inside.Tap!.ExpectRecords();
    }

    [Test, Property("Rule", "P16")]
    [Property("Threat", "P16")]
    public async Task P16_The_payload_of_a_refused_write_is_consumed_inside_tls_too()
    {
        ServerFixture server = await ServeAsync(new TestExport(size: 64 << 10), Required with { ReadOnly = true });
        WireClient inside = await InsideAsync(server);
        // The payload holds a request that would be answered if it were taken for one.
        byte[] payload = [.. WireBytes.Request(Cmd.Read, 4711, 0, 512), .. new byte[8 << 20]];
        await inside.ExpectCallAsync(WireError.Perm, Cmd.Write, 0, (uint)payload.Length, 0, payload);
        await inside.ExpectCallAsync(WireError.Perm, Cmd.Write, ulong.MaxValue, (uint)payload.Length, 0, payload);
        await inside.ExpectAliveAsync(server.Plugin.Data);
        inside.Tap!.ExpectRecords();
    }

    [Test, Property("Rule", "N06")]
    [Property("Threat", "N06")]
    public async Task N06_A_request_that_is_cancelled_or_fails_leaves_the_session_usable()
    {
        ServerFixture server = await ServeAsync(new TestExport(), Required);
        server.Plugin.Export.Before = call => call.Offset == 512
            ? throw new OperationCanceledException()
            : default;
        WireClient inside = await InsideAsync(server);
        for (int i = 0; i < 100; i++)
        {
            await inside.ExpectCallAsync(WireError.Io, Cmd.Read, 512, 512);
            await inside.ExpectAliveAsync(server.Plugin.Data);
        }
    }

    [Test, Property("Rule", "N06")]
    [Property("Threat", "N06")]
    public async Task N06_A_stop_lets_requests_finish_and_says_goodbye()
    {
        var entered = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        var go = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        ServerFixture server = await ServeAsync(new TestExport(), Required);
        server.Plugin.Export.Before = async _ =>
        {
            entered.TrySetResult();
            await go.Task;
        };
        WireClient inside = await InsideAsync(server);
        await inside.SendRequestAsync(Cmd.Read, 0, 512);
        await entered.Task;

        Task stopping = server.Server.StopAsync();
        go.SetResult();
        WireReply reply = await inside.ReadReplyAsync();
        await stopping;

        Assert.That(reply.Error, Is.Zero);
        await inside.ExpectGoneAsync(NbdDisconnectReason.ServerStopped);
        inside.Tap!.ExpectRecords();
    }

    [Test, Property("Rule", "N11"), Property("Threat", "N11")]
    public async Task N11_A_host_with_one_thread_is_not_locked_up()
        => await SingleThread.RunAsync(async () =>
        {
            var options = new NbdServerOptions
            {
                Tls = new NbdServerTls(async (_, cancellationToken) =>
                {
                    await Task.Yield();
                    return new SslServerAuthenticationOptions { ServerCertificate = TestCertificates.Server };
                }),
            };
            ServerFixture server = await ServerFixture.StartAsync(new TestPlugin(), options);
            WireClient inside = await InsideAsync(server);
            await inside.ExpectAliveAsync(server.Plugin.Data);
            await inside.SendRequestAsync(Cmd.Disc);
            await inside.ExpectGoneAsync(NbdDisconnectReason.ClientDone);
            await server.DisposeAsync();
        }).WaitAsync(WireClient.Deadline * 3);

    [Test, Property("Rule", "S030")]
    public async Task S030_The_server_closes_tls_before_the_connection()
    {
        ServerFixture server = await ServeAsync(options: Required);
        foreach (NbdDisconnectReason reason in new[]
        {
            NbdDisconnectReason.ClientDone, NbdDisconnectReason.ProtocolViolation, NbdDisconnectReason.ServerStopped,
        })
        {
            // In TLS 1.2 the type of a record can be seen from outside.
            WireClient inside = await InsideAsync(server, TestCertificates.Client(protocols: SslProtocols.Tls12));
            switch (reason)
            {
                case NbdDisconnectReason.ClientDone:
                    await inside.SendRequestAsync(Cmd.Disc);
                    break;
                case NbdDisconnectReason.ProtocolViolation:
                    await inside.SendAsync(new byte[28]);
                    break;
                default:
                    await server.Server.StopAsync();
                    break;
            }
            await inside.ExpectGoneAsync(reason);
            Assert.That(inside.Tap!.ExpectRecords()[^1], Is.EqualTo(21), "close_notify is the last that comes");
        }
    }

    [Test, Property("Rule", "P13")]
    public async Task P13_An_end_without_close_notify_is_quiet_between_messages_and_an_error_inside_one()
    {
        ServerFixture server = await ServeAsync(options: Required);
        foreach (bool inMessage in new[] { false, true })
        {
            foreach (bool notify in new[] { false, true })
            {
                WireClient plain = await server.HaggleAsync();
                WireClient inside = await plain.StartTlsAsync();
                await inside.GoAsync();
                if (inMessage)
                {
                    await inside.SendAsync(WireBytes.Request(Cmd.Read, 1, 0, 512).AsMemory(0, 20));
                }
                if (notify)
                {
                    await inside.Tls!.ShutdownAsync();
                }
                await plain.FinishAsync();
                await inside.ExpectEndAsync(inMessage ? NbdDisconnectReason.ConnectionLost : NbdDisconnectReason.ClientGone);
            }
        }
    }

    [Test, Property("Rule", "P13")]
    public async Task P13_A_cut_record_and_a_forged_one_end_the_connection()
    {
        ServerFixture server = await ServeAsync(options: Required);
        foreach (byte[] record in new byte[][]
        {
            [23, 3, 3, 0, 200, 1, 2, 3],
            [23, 3, 3, 0, 32, .. new byte[32]],
            [23, 3, 3, 0xff, 0xff, .. new byte[16 << 10]],
            [99, 3, 3, 0, 1, 0],
        })
        {
            WireClient plain = await server.HaggleAsync();
            WireClient inside = await plain.StartTlsAsync();
            await inside.GoAsync();
            await plain.SendAsync(record);
            await plain.FinishAsync();
            await inside.ExpectEndAsync(NbdDisconnectReason.ConnectionLost);
        }
    }

    [Test, Property("Rule", "P13")]
    public async Task P13_A_client_cannot_renegotiate()
    {
        ServerFixture server = await ServeAsync(options: Required);
        WireClient client = await server.HaggleAsync();

        // .NET's client cannot ask for it; the option is off for those that can.
        SslServerAuthenticationOptions given = new() { AllowRenegotiation = true, ServerCertificate = TestCertificates.Server };
        SslServerAuthenticationOptions used = await new NbdServerTls(given).AuthenticationForAsync(Public(server), default);

        Assert.That(used.AllowRenegotiation, Is.False);
        Assert.That(used.EnabledSslProtocols, Is.EqualTo(SslProtocols.Tls12 | SslProtocols.Tls13));
        await (await client.StartTlsAsync()).GoAsync();
    }

    private static NbdConnection Public(ServerFixture server) => server.Server.Connections.First();

    private static async Task<WireClient> InsideAsync(ServerFixture server, SslClientAuthenticationOptions? options = null)
    {
        WireClient inside = await (await server.HaggleAsync()).StartTlsAsync(options);
        await inside.GoAsync();
        return inside;
    }

    /// <summary>A client of a server that is handed a stream on which TLS is established.</summary>
    private static async Task<WireClient> ConnectInsideAsync(NbdServer server, Random random)
    {
        var pipes = new PipePair();
        var ssl = new SslStream(new SplittingStream(Duplex(pipes.Server), random));
        Task accepting = ssl.AuthenticateAsServerAsync(
            new SslServerAuthenticationOptions { ServerCertificate = TestCertificates.Server });
        var ended = new TaskCompletionSource<NbdDisconnect>(TaskCreationOptions.RunContinuationsAsynchronously);
        WireClient inside = await new WireClient(pipes.Client, ended.Task).AuthenticateAsync();
        await accepting;
        _ = server.ServeAsync(ssl).ContinueWith(task => ended.SetResult(task.Result), TaskScheduler.Default);
        return inside;
    }

    private static Stream Duplex(IDuplexPipe pipe) => new TapStream(pipe);

    private static string WithoutStartTls(string words)
        => string.Join('\n', words.Split('\n').Where(line => !line.StartsWith($"{Opt.StartTls} ", StringComparison.Ordinal)));
}
