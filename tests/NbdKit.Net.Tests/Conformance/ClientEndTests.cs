using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Conformance;

/// <summary>How the connection of a client ends ("Terminating the transmission phase"), and what its requests hear of it.</summary>
[Parallelizable(ParallelScope.All)]
public sealed class ClientEndTests
{
    [TestCase(true)]
    [TestCase(false)]
    [Property("Rule", "C047")]
    public async Task C047_A_client_that_leaves_waits_for_what_is_in_flight_and_sends_nothing_afterwards(bool dispose)
    {
        await using var server = new TransmissionServer();
        Task[] reading = [.. Enumerable.Range(0, 100).Select(i => server.Client.ReadAsync(new byte[1], i).AsTask())];
        Task leaving = dispose ? server.Client.DisposeAsync().AsTask() : server.Client.DisconnectAsync();
        // 64 at a time are in flight; the others get their turn all the same.
        for (int i = 0; i < reading.Length; i++)
        {
            WireRequest request = await server.NextAsync();
            Assert.That(request.Type, Is.EqualTo(Cmd.Read));
            Assert.ThrowsAsync<NbdClientException>(() => server.Client.FlushAsync().AsTask().Soon());
            await server.SucceedAsync(request, (byte)i);
        }

        await Task.WhenAll(reading).Soon();
        Assert.That((await server.NextAsync()).Type, Is.EqualTo(Cmd.Disc));
        await server.CloseAsync();
        await leaving.Soon();
        Assert.That(await server.ReadToEndAsync(), Is.Empty);
        Assert.That(server.Client.IsConnected, Is.False);
    }

    [Test, Property("Rule", "C047")]
    public async Task C047_A_client_that_is_told_to_stop_waiting_closes_at_once()
    {
        await using var server = new TransmissionServer();
        using var stop = new CancellationTokenSource();
        Task writing = server.Client.WriteAsync(new byte[1], 0).AsTask();
        await server.NextAsync();
        Task leaving = server.Client.DisconnectAsync(stop.Token);
        await stop.CancelAsync();

        Assert.CatchAsync<OperationCanceledException>(() => leaving.Soon());
        NbdClientException failure = Assert.ThrowsAsync<NbdClientException>(() => writing.Soon())!;
        Assert.That(failure.IsOutcomeUnknown);
        Assert.That(await server.ReadToEndAsync(), Is.Empty);
    }

    [Test]
    public async Task A_dispose_does_not_wait_for_ever()
    {
        var time = new FakeTimeProvider();
        await using var server = new TransmissionServer(new TransmissionExport { Options = new NbdClientOptions { TimeProvider = time } });
        Task reading = server.Client.ReadAsync(new byte[1], 0).AsTask();
        await server.NextAsync();
        Task disposing = server.Client.DisposeAsync().AsTask();
        await time.WaitForTimersAsync();
        time.Advance(TimeSpan.FromSeconds(5));

        await disposing.Soon();
        Assert.ThrowsAsync<NbdClientException>(() => reading.Soon());
        await server.Client.DisposeAsync();
        await server.Client.DisconnectAsync();
    }

    [Test, Property("Rule", "C048")]
    public async Task C048_A_server_that_is_stopping_is_left_in_order()
    {
        await using var server = new TransmissionServer(
            new TransmissionExport { Options = new NbdClientOptions { MaxRequestsInFlight = 2 } });
        Task stopped = server.Client.ReadAsync(new byte[1], 0).AsTask();
        Task served = server.Client.ReadAsync(new byte[1], 1).AsTask();
        Task waiting = server.Client.ReadAsync(new byte[1], 2).AsTask();
        List<WireRequest> requests = await server.NextAsync(2);
        await server.FailAsync(requests[0], WireError.Shutdown);

        Assert.That(Assert.ThrowsAsync<NbdException>(() => stopped.Soon())!.Error, Is.EqualTo(NbdError.Shutdown));
        // The place that became free went to the one that waited: it is in flight before the answer is understood.
        if (!waiting.IsFaulted)
        {
            WireRequest third = await server.NextAsync();
            await server.SucceedAsync(third, 1);
            await waiting.Soon();
        }
        NbdClientException refused = Assert.ThrowsAsync<NbdClientException>(() => server.Client.FlushAsync().AsTask().Soon())!;
        Assert.That(refused.Error, Is.EqualTo(NbdClientError.ServerShutdown));
        await server.SucceedAsync(requests[1], 1);
        await served.Soon();
        Assert.That((await server.NextAsync()).Type, Is.EqualTo(Cmd.Disc));
        await server.CloseAsync();
        Assert.That(await server.ReadToEndAsync(), Is.Empty);
    }

    [TestCase(0UL)]
    [TestCase(0x1234_5678_9abc_def0UL)]
    [TestCase(ulong.MaxValue)]
    [Property("Rule", "C076"), Property("Threat", "linux-2021-unexpected-messages")]
    public Task C076_A_cookie_of_no_request_in_flight(ulong cookie)
        => ClientViolation.CheckReadAsync(
            TransmissionExport.Simple, (_, _) => [.. TransmissionServer.Simple(cookie, 0), .. new byte[64]]);

    [Test, Property("Rule", "C076"), Property("Threat", "linux-2021-unexpected-messages")]
    public Task C076_A_cookie_of_the_right_place_and_another_count()
        => ClientViolation.CheckReadAsync(
            TransmissionExport.Simple, (_, r) => [.. TransmissionServer.Simple(r.Cookie + (5UL << 32), 0), .. new byte[64]]);

    [Test, Property("Rule", "C076"), Property("Threat", "linux-2021-unexpected-messages")]
    public async Task C076_A_reply_before_any_request()
    {
        await using var server = new TransmissionServer();
        await server.SendAsync(TransmissionServer.Simple(1UL << 32, 0));
        await server.SendAsync(new WireBytes().U32(Magic.Chunk).U16(1).U16(0).U64(1UL << 32).U32(0).ToArray());
        Assert.That(await server.ReadToEndAsync(), Is.Empty);

        Assert.That(
            Assert.ThrowsAsync<NbdClientException>(() => server.Client.FlushAsync().AsTask().Soon())!.Error,
            Is.EqualTo(NbdClientError.ProtocolViolation));
    }

    [Test, Property("Rule", "C085")]
    public async Task C085_The_end_inside_a_message_fails_each_request_once([Values] bool extended)
    {
        byte[] whole = await ReplyAsync(extended, null);
        for (int cut = 0; cut < whole.Length; cut++)
        {
            await ReplyAsync(extended, cut);
        }
    }

    [Test]
    public async Task A_server_that_closes_between_requests_is_lost()
    {
        await using var server = new TransmissionServer();
        await server.CloseAsync();
        await server.ReadToEndAsync();

        NbdClientException failure = Assert.ThrowsAsync<NbdClientException>(() => server.Client.FlushAsync().AsTask().Soon())!;
        Assert.That(failure.Error, Is.EqualTo(NbdClientError.ConnectionLost));
        Assert.That(failure.IsOutcomeUnknown, Is.False);
    }

    /// <summary>Answers a read with several chunks, cut after some bytes, while a write is in flight; returns the bytes.</summary>
    private static async Task<byte[]> ReplyAsync(bool extended, int? cut)
    {
        await using var server = new TransmissionServer(extended ? TransmissionExport.WithExtended : TransmissionExport.WithContext);
        int ends = 0;
        Task reading = Count(server.Client.ReadAsync(new byte[20], 0));
        var extents = new ExtentList(0, 1 << 20);
        Task asking = Count(server.Client.ExtentsAsync(0, 64, RequestFlags.None, extents));
        Task writing = Count(server.Client.WriteAsync(new byte[5], 0));
        List<WireRequest> requests = await server.NextAsync(3);
        byte[] reply =
        [
            .. server.Data(requests[0], 0, new byte[10], done: false),
            .. server.Hole(requests[0], 10, 10, done: false),
            .. server.Chunk(requests[0], ChunkType.ErrorOffset, new WireBytes().U32(5).U16(2).Raw("no"u8).U64(3).ToArray()),
            .. server.Status(requests[1], 7, (64, 0)),
        ];
        await server.SendAsync(cut is null ? reply : reply[..cut.Value]);
        await server.CloseAsync();

        NbdClientException failure = Assert.ThrowsAsync<NbdClientException>(() => writing.Soon())!;
        Assert.That((failure.Error, failure.IsOutcomeUnknown), Is.EqualTo((NbdClientError.ConnectionLost, true)), $"cut {cut}");
        Assert.CatchAsync(() => reading.Soon());
        if (cut is null)
        {
            await asking.Soon();
        }
        else
        {
            Assert.ThrowsAsync<NbdClientException>(() => asking.Soon());
        }
        await server.ReadToEndAsync();
        Assert.That(ends, Is.EqualTo(3));
        return reply;

        async Task Count(ValueTask task)
        {
            try
            {
                await task;
            }
            finally
            {
                Interlocked.Increment(ref ends);
            }
        }
    }
}
