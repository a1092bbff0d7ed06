using NbdKit.Tests.Testing;

namespace NbdKit.Tests;

/// <summary>Several connections used as one, and connections that are replaced.</summary>
[Parallelizable(ParallelScope.All)]
public sealed class NbdClientPoolTests
{
    private static readonly TransmissionExport Multi = new() { Flags = (ushort)(new TransmissionExport().Flags | TxFlag.CanMultiConn) };
    private static readonly NbdReconnectPolicy Policy = new() { Attempts = 3, Delay = TimeSpan.Zero };

    [Test, Property("Rule", "C049")]
    public async Task C049_A_flush_is_sent_after_the_writes_that_it_covers_were_answered_on_any_connection()
    {
        var servers = new Servers(Multi, 2);
        await using NbdClientPool pool = await NbdClientPool.ConnectAsync(servers.ConnectAsync, 2);
        Task first = pool.WriteAsync(new byte[1], 0).AsTask();
        Task second = pool.WriteAsync(new byte[1], 1).AsTask();
        Task flushing = pool.FlushAsync().AsTask();
        Task later = pool.WriteAsync(new byte[1], 2).AsTask();
        WireRequest[] writes = [await servers[0].NextAsync(), await servers[1].NextAsync()];
        Assert.That(writes.Select(w => w.Type), Is.All.EqualTo(Cmd.Write));

        await servers[0].SucceedAsync(writes[0]);
        await servers[1].SucceedAsync(writes[1]);
        await Task.WhenAll(first, second).Soon();

        // Whatever else came meanwhile: the flush came after both answers.
        List<WireRequest> rest = [];
        foreach (TransmissionServer server in servers.All)
        {
            if (server.HasInput() || rest.Count == 0 || !rest.Exists(r => r.Type == Cmd.Flush))
            {
                WireRequest request = await server.NextAsync();
                rest.Add(request);
                await server.SucceedAsync(request);
            }
        }
        foreach (TransmissionServer server in servers.All)
        {
            if (rest.Count < 2)
            {
                WireRequest request = await server.NextAsync();
                rest.Add(request);
                await server.SucceedAsync(request);
            }
        }
        await flushing.Soon();
        await later.Soon();
        Assert.That(rest.Select(r => r.Type), Is.EquivalentTo((ushort[])[Cmd.Write, Cmd.Flush]));
        await servers.CloseAsync();
    }

    [Test, Property("Rule", "C049")]
    public async Task C049_A_flush_waits_while_a_write_on_another_connection_is_not_answered()
    {
        var servers = new Servers(Multi, 2);
        await using NbdClientPool pool = await NbdClientPool.ConnectAsync(servers.ConnectAsync, 2);
        Task writing = pool.WriteAsync(new byte[1], 0).AsTask();
        TransmissionServer writer = servers[0].HasInput() ? servers[0] : servers[1];
        WireRequest write = await writer.NextAsync();
        Task flushing = pool.FlushAsync().AsTask();
        // A read behind it goes out: so the flush would have gone out too.
        Task reading = Task.WhenAll(pool.ReadAsync(new byte[1], 5).AsTask(), pool.ReadAsync(new byte[1], 6).AsTask());
        foreach (TransmissionServer server in servers.All)
        {
            WireRequest read = await server.NextAsync();
            Assert.That(read.Type, Is.EqualTo(Cmd.Read));
            await server.SucceedAsync(read, 1);
        }
        await reading.Soon();
        Assert.That(flushing.IsCompleted, Is.False);

        await writer.FailAsync(write, WireError.Io);
        Assert.ThrowsAsync<NbdException>(() => writing.Soon());
        TransmissionServer flusher = await servers.WithInputAsync();
        WireRequest flush = await flusher.NextAsync();
        Assert.That(flush.Type, Is.EqualTo(Cmd.Flush));
        await flusher.SucceedAsync(flush);
        await flushing.Soon();
        await servers.CloseAsync();
    }

    [Test, Property("Rule", "C049")]
    public async Task C049_Without_multi_conn_there_is_one_connection()
    {
        var servers = new Servers(new TransmissionExport(), 4);
        await using NbdClientPool pool = await NbdClientPool.ConnectAsync(servers.ConnectAsync, 4);

        Assert.That(pool.Clients, Has.Count.EqualTo(1));
        Assert.That(servers.Connected, Is.EqualTo(1));
        await servers.CloseAsync();
    }

    [Test, Property("Rule", "C087")]
    public async Task C087_A_write_that_was_not_answered_is_not_sent_again_unless_that_is_wanted([Values] bool replay)
    {
        var servers = new Servers(new TransmissionExport(), 2);
        await using NbdClientPool pool = await NbdClientPool.ConnectAsync(
            servers.ConnectAsync, 1, Policy with { ReplayChanges = replay });
        Task writing = pool.WriteAsync(new byte[] { 1, 2 }, 0).AsTask();
        Task reading = pool.ReadAsync(new byte[1], 9).AsTask();
        await servers[0].NextAsync(2);
        await servers[0].CloseAsync();

        List<WireRequest> again = await servers[1].NextAsync(replay ? 2 : 1);
        foreach (WireRequest request in again)
        {
            await servers[1].SucceedAsync(request, request.Type == Cmd.Read ? [1] : []);
        }

        await reading.Soon();
        Assert.That(again.Select(r => r.Type), Is.EquivalentTo(replay ? (ushort[])[Cmd.Read, Cmd.Write] : [Cmd.Read]));
        if (replay)
        {
            await writing.Soon();
        }
        else
        {
            NbdClientException failure = Assert.ThrowsAsync<NbdClientException>(() => writing.Soon())!;
            Assert.That((failure.Error, failure.IsOutcomeUnknown), Is.EqualTo((NbdClientError.ConnectionLost, true)));
        }
        await servers.CloseAsync();
    }

    [Test, Property("Rule", "C087")]
    public async Task C087_A_flush_does_not_vouch_for_what_a_lost_server_had_acknowledged([Values] bool inFlight)
    {
        var servers = new Servers(new TransmissionExport(), 2);
        await using NbdClientPool pool = await NbdClientPool.ConnectAsync(servers.ConnectAsync, 1, Policy);
        Task writing = pool.WriteAsync(new byte[] { 1, 2 }, 0).AsTask();
        await servers[0].SucceedAsync(await servers[0].NextAsync());
        await writing.Soon();
        Task flushing = Task.CompletedTask;
        if (inFlight)
        {
            flushing = pool.FlushAsync().AsTask();
            await servers[0].NextAsync();
        }
        await servers[0].CloseAsync();
        await servers[0].ReadToEndAsync();
        flushing = inFlight ? flushing : pool.FlushAsync().AsTask();

        NbdClientException failure = Assert.ThrowsAsync<NbdClientException>(() => flushing.Soon())!;
        Assert.That(failure.IsOutcomeUnknown);
        Task second = pool.FlushAsync().AsTask();
        await servers[1].SucceedAsync(await servers[1].NextAsync());
        await second.Soon();
        await servers.CloseAsync();
    }

    [Test, Property("Rule", "C087")]
    public async Task C087_No_more_attempts_are_made_than_the_policy_says()
    {
        var servers = new Servers(new TransmissionExport(), 1);
        await using NbdClientPool pool = await NbdClientPool.ConnectAsync(servers.ConnectAsync, 1, Policy);
        Task reading = pool.ReadAsync(new byte[1], 9).AsTask();
        await servers[0].NextAsync();
        await servers[0].CloseAsync();

        Assert.That(
            Assert.ThrowsAsync<NbdClientException>(() => reading.Soon())!.Error, Is.EqualTo(NbdClientError.ConnectFailed));
        Assert.That(servers.Refused, Is.EqualTo(Policy.Attempts));
        Assert.ThrowsAsync<NbdClientException>(() => pool.FlushAsync().AsTask().Soon());
        Assert.That(servers.Refused, Is.EqualTo(Policy.Attempts));
    }

    [Test, Property("Rule", "C087")]
    public async Task C087_Another_export_under_the_same_name_is_not_used()
    {
        var servers = new Servers(new TransmissionExport(), 1);
        servers.Add(new TransmissionExport { Size = 4096 });
        await using NbdClientPool pool = await NbdClientPool.ConnectAsync(servers.ConnectAsync, 1, Policy);
        Task reading = pool.ReadAsync(new byte[1], 9).AsTask();
        await servers[0].NextAsync();
        await servers[0].CloseAsync();
        await servers[1].CloseAsync();

        Assert.That(
            Assert.ThrowsAsync<NbdClientException>(() => reading.Soon())!.Error, Is.EqualTo(NbdClientError.ExportUnknown));
    }

    [Test]
    public async Task Attempts_wait_for_their_time()
    {
        var time = new FakeTimeProvider();
        var servers = new Servers(new TransmissionExport(), 2);
        await using NbdClientPool pool = await NbdClientPool.ConnectAsync(
            servers.ConnectAsync, 1, new NbdReconnectPolicy { Delay = TimeSpan.FromSeconds(9) }, time);
        Task reading = pool.ReadAsync(new byte[1], 9).AsTask();
        await servers[0].NextAsync();
        await servers[0].CloseAsync();
        await time.WaitForTimersAsync();
        time.Advance(TimeSpan.FromSeconds(8));
        Assert.That(servers.Connected, Is.EqualTo(1));

        time.Advance(TimeSpan.FromSeconds(1));
        await servers[1].SucceedAsync(await servers[1].NextAsync(), 1);
        await reading.Soon();
        await servers.CloseAsync();
    }

    /// <summary>Servers to connect to one after the other; when there is none left nobody answers.</summary>
    private sealed class Servers
    {
        private int _connected;

        public Servers(TransmissionExport export, int count)
        {
            for (int i = 0; i < count; i++)
            {
                Add(export);
            }
        }

        public List<TransmissionServer> All { get; } = [];

        public int Connected => Math.Min(All.Count, _connected);

        public int Refused => Math.Max(0, _connected - All.Count);

        public TransmissionServer this[int index] => All[index];

        public void Add(TransmissionExport export) => All.Add(new TransmissionServer(export));

        public Task<NbdClient> ConnectAsync(CancellationToken cancellationToken)
        {
            int index = Interlocked.Increment(ref _connected) - 1;
            return index < All.Count
                ? Task.FromResult(All[index].Client)
                : throw new NbdClientException(NbdClientError.ConnectFailed, "nobody is there");
        }

        public async Task<TransmissionServer> WithInputAsync()
        {
            while (true)
            {
                foreach (TransmissionServer server in All)
                {
                    if (server.HasInput())
                    {
                        return server;
                    }
                }
                await Task.Yield();
            }
        }

        public Task CloseAsync() => Task.WhenAll(All.Select(server => server.CloseAsync()));
    }
}
