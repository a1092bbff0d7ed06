using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Conformance;

/// <summary>Requests that their callers give up, by token or by time.</summary>
[Parallelizable(ParallelScope.All)]
public sealed class ClientPatienceTests
{
    private const int Length = 300;
    private static readonly TimeSpan Limit = TimeSpan.FromSeconds(7);

    [Test, Property("Rule", "C088"), Property("Rule", "CVE_2024_49855")]
    [Property("Threat", "CVE-2024-49855")]
    public async Task C088_CVE_2024_49855_Late_replies_of_1_000_cancelled_requests_are_consumed_once([Values] bool structured)
    {
        const int Seed = 49855;
        await using var server = new TransmissionServer(structured ? new TransmissionExport() : TransmissionExport.Simple);
        var random = new Random(Seed);
        for (int round = 0; round < 100; round++)
        {
            using var stop = new CancellationTokenSource();
            byte[][] buffers = [.. Enumerable.Range(0, 10).Select(_ => new byte[Length])];
            Task[] cancelled = [.. buffers.Select((b, i) => server.Client.ReadAsync(b, i * Length, stop.Token).AsTask())];
            byte[] buffer = new byte[Length];
            Task kept = server.Client.ReadAsync(buffer, 9000).AsTask();
            WireRequest[] requests = [.. await server.NextAsync(11)];
            byte[] content = TestData.Random(Length, round + 1);
            // One reply is on its way when all are given up.
            byte[] first = server.Success(requests[0], content);
            int cut = random.Next(first.Length);
            await server.SendAsync(first[..cut]);

            await stop.CancelAsync();
            foreach (Task task in cancelled)
            {
                Assert.CatchAsync<OperationCanceledException>(() => task.Soon());
            }
            Array.ForEach(buffers, given => given.AsSpan().Fill(0xa5));
            Assert.That(server.Client.RequestsInFlight, Is.EqualTo(11));
            await server.SendAsync(first[cut..]);
            random.Shuffle(requests.AsSpan(1));
            foreach (WireRequest request in requests.Skip(1))
            {
                await server.SendAsync(server.Success(request, content));
            }
            await kept.Soon();
            Task last = server.Client.FlushAsync().AsTask();
            await server.SucceedAsync(await server.NextAsync());
            await last.Soon();

            Assert.That(buffer, Is.EqualTo(content), $"seed {Seed}");
            Assert.That(buffers.SelectMany(b => b), Is.All.EqualTo(0xa5), $"seed {Seed}: a buffer was written after its task ended");
            Assert.That(server.Client.RequestsInFlight, Is.Zero);
        }
    }

    [Test, Property("Rule", "C088")]
    public async Task C088_A_request_that_waits_for_its_turn_is_given_up_without_being_sent()
    {
        await using var server = new TransmissionServer(
            new TransmissionExport { Options = new NbdClientOptions { MaxRequestsInFlight = 1 } });
        using var stop = new CancellationTokenSource();
        Task first = server.Client.ReadAsync(new byte[1], 1).AsTask();
        Task second = server.Client.ReadAsync(new byte[1], 2, stop.Token).AsTask();
        Task third = server.Client.ReadAsync(new byte[1], 3).AsTask();
        await stop.CancelAsync();

        Assert.CatchAsync<OperationCanceledException>(() => second.Soon());
        await server.SucceedAsync(await server.NextAsync(), 1);
        await first.Soon();
        WireRequest next = await server.NextAsync();
        Assert.That(next.Offset, Is.EqualTo(3));
        await server.SucceedAsync(next, 1);
        await third.Soon();
    }

    [Test, Property("Rule", "C088")]
    public async Task C088_A_token_that_fired_before_gives_up_at_once()
    {
        await using var server = new TransmissionServer();
        Task reading = server.Client.ReadAsync(new byte[1], 1, new CancellationToken(canceled: true)).AsTask();

        Assert.CatchAsync<OperationCanceledException>(() => reading.Soon());
    }

    [Test, Property("Rule", "C088")]
    public async Task C088_A_place_stays_taken_until_the_late_reply_has_come()
    {
        await using var server = new TransmissionServer(
            new TransmissionExport { Options = new NbdClientOptions { MaxRequestsInFlight = 1 } });
        using var stop = new CancellationTokenSource();
        Task given = server.Client.ReadAsync(new byte[1], 1, stop.Token).AsTask();
        WireRequest request = await server.NextAsync();
        await stop.CancelAsync();
        Assert.CatchAsync<OperationCanceledException>(() => given.Soon());
        Task next = server.Client.ReadAsync(new byte[1], 2).AsTask();
        Assert.That(server.HasInput(), Is.False);

        await server.SucceedAsync(request, 1);
        WireRequest second = await server.NextAsync();

        Assert.That(second.Cookie, Is.Not.EqualTo(request.Cookie));
        await server.SucceedAsync(second, 1);
        await next.Soon();
    }

    [Test, Property("Rule", "C088")]
    public async Task C088_A_write_ends_only_after_its_payload_has_left_the_callers_memory()
    {
        var sending = new TaskCompletionSource();
        var release = new TaskCompletionSource();
        var transport = new ScriptedTransport
        {
            OnSend = async _ =>
            {
                sending.TrySetResult();
                await release.Task;
            },
        };
        await using var client = new NbdClient(new TransmissionExport().Session(transport), new NbdClientOptions());
        using var stop = new CancellationTokenSource();
        Task writing = client.WriteAsync(new byte[100_000], 0, RequestFlags.None, stop.Token).AsTask();
        await sending.Task.Soon();
        await stop.CancelAsync();
        await Task.Yield();

        Assert.That(writing.IsCompleted, Is.False);
        release.SetResult();
        Assert.CatchAsync<OperationCanceledException>(() => writing.Soon());
        Assert.That(transport.TakeOutput(), Has.Length.EqualTo(28 + 100_000));
        transport.Finish();
    }

    [Test, Property("Rule", "C086")]
    public async Task C086_A_silent_server_costs_each_request_its_time_and_not_the_connection()
    {
        var time = new FakeTimeProvider();
        await using var server = new TransmissionServer(Impatient(time, 2));
        Task reading = server.Client.ReadAsync(new byte[1], 0).AsTask();
        time.Advance(TimeSpan.FromSeconds(3));
        Task writing = server.Client.WriteAsync(new byte[1], 0).AsTask();
        Task waiting = server.Client.WriteAsync(new byte[1], 0).AsTask();
        List<WireRequest> requests = await server.NextAsync(2);

        time.Advance(TimeSpan.FromSeconds(4));
        AssertTimeout(reading, unknown: false);
        Assert.That(writing.IsCompleted || waiting.IsCompleted, Is.False);
        time.Advance(TimeSpan.FromSeconds(3));
        AssertTimeout(writing, unknown: true);
        AssertTimeout(waiting, unknown: false);

        await server.SucceedAsync(requests[1]);
        await server.SucceedAsync(requests[0], 1);
        Task flushing = server.Client.FlushAsync().AsTask();
        await server.SucceedAsync(await server.NextAsync());
        await flushing.Soon();
        Assert.That(server.Client.RequestsInFlight, Is.Zero);
    }

    [Test, Property("Rule", "C086")]
    public async Task C086_A_server_that_takes_nothing_costs_the_connection()
    {
        var time = new FakeTimeProvider();
        var release = new TaskCompletionSource();
        var transport = new ScriptedTransport { OnSend = token => new ValueTask(release.Task.WaitAsync(token)) };
        await using var client = new NbdClient(Impatient(time, 8).Session(transport), Impatient(time, 8).Options);
        Task writing = client.WriteAsync(new byte[100_000], 0).AsTask();
        Task reading = client.ReadAsync(new byte[1], 0).AsTask();
        time.Advance(Limit);

        AssertTimeout(writing, unknown: true);
        AssertTimeout(reading, unknown: false);
        Assert.That(transport.IsAborted);
        Assert.That(client.IsConnected, Is.False);
    }

    [Test, Property("Rule", "C086"), Property("Rule", "C088")]
    public async Task C086_C088_A_write_that_was_given_up_and_is_still_being_taken_has_no_more_time_than_any_other()
    {
        var time = new FakeTimeProvider();
        var sending = new TaskCompletionSource();
        var transport = new ScriptedTransport();
        await using var client = new NbdClient(Impatient(time, 8).Session(transport), Impatient(time, 8).Options);
        Task reading = client.ReadAsync(new byte[1], 0).AsTask();
        transport.OnSend = token =>
        {
            sending.TrySetResult();
            return new ValueTask(Task.Delay(Timeout.Infinite, token));
        };
        time.Advance(TimeSpan.FromSeconds(3));
        using var stop = new CancellationTokenSource();
        Task writing = client.WriteAsync(new byte[100_000], 0, RequestFlags.None, stop.Token).AsTask();
        await sending.Task.Soon();
        await stop.CancelAsync();
        time.Advance(TimeSpan.FromSeconds(4));
        AssertTimeout(reading, unknown: false);
        Assert.That((transport.IsAborted, writing.IsCompleted), Is.EqualTo((false, false)));

        time.Advance(TimeSpan.FromSeconds(3));

        Assert.CatchAsync<OperationCanceledException>(() => writing.Soon());
        Assert.That((transport.IsAborted, client.IsConnected), Is.EqualTo((true, false)));
    }

    [Test, Property("Rule", "C086")]
    public async Task C086_A_reply_that_races_with_the_end_of_its_time_is_told_or_dropped_once()
    {
        var time = new FakeTimeProvider();
        await using var server = new TransmissionServer(Impatient(time, 64));
        for (int round = 0; round < 200; round++)
        {
            byte[] buffer = new byte[4];
            Task reading = server.Client.ReadAsync(buffer, 0).AsTask();
            WireRequest request = await server.NextAsync();
            var go = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            Task late = Task.Run(async () =>
            {
                await go.Task;
                time.Advance(Limit);
            });
            go.SetResult();
            await server.SucceedAsync(request, 1, 2, 3, 4);
            await late.Soon();
            try
            {
                await reading.Soon();
                Assert.That(buffer, Is.EqualTo((byte[])[1, 2, 3, 4]));
            }
            catch (NbdClientException e) when (e.Error == NbdClientError.Timeout)
            {
                Assert.That(buffer, Is.All.Zero);
            }
            // The next round's reply comes after this one's: its coming proves that the late one was consumed.
        }
        Assert.That(server.Client.IsConnected);
    }

    private static TransmissionExport Impatient(FakeTimeProvider time, int inFlight) => new()
    {
        Options = new NbdClientOptions { RequestTimeout = Limit, TimeProvider = time, MaxRequestsInFlight = inFlight },
    };

    private static void AssertTimeout(Task task, bool unknown)
    {
        NbdClientException failure = Assert.ThrowsAsync<NbdClientException>(() => task.Soon())!;
        Assert.That((failure.Error, failure.IsOutcomeUnknown), Is.EqualTo((NbdClientError.Timeout, unknown)));
    }
}
