using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Plugins;

public class MirrorResyncTests
{
    private const int Size = (5 << 20) + 700;

    private static async Task<byte[]> ContentOfAsync(NbdBackend chain, int size = Size)
    {
        await using NextContext disk = await chain.OpenAsync();
        return await TestData.ReadAsync(disk, 0, size);
    }

    private static NbdBackend Memory(long size = Size) => NbdBackend.Compose(new MemoryPlugin { Size = size });

    [Test]
    public async Task A_new_member_gets_everything_while_clients_write([Values(1, 2, 3)] int seed)
    {
        await using NbdBackend first = Memory();
        await using NbdBackend second = Memory(Size + 4096);
        // Used by the test too, so that they live on.
        await first.StartAsync();
        await second.StartAsync();
        var mirror = new MirrorPlugin { Chains = [first] };
        await using NbdBackend chain = NbdBackend.Compose(mirror);
        await using (NextContext disk = await chain.OpenAsync())
        {
            await disk.WriteAsync(TestData.Random(Size / 2, seed), 1000, RequestFlags.None, default);
        }
        using var stop = new CancellationTokenSource();
        int done = 0;
        Task[] clients = [.. Enumerable.Range(0, 3).Select(i => Task.Run(async () =>
        {
            var random = new Random((seed * 10) + i);
            while (!stop.IsCancellationRequested)
            {
                await using NextContext disk = await chain.OpenAsync();
                for (int n = 0; n < 20; n++)
                {
                    byte[] data = new byte[random.Next(1, 30_000)];
                    random.NextBytes(data);
                    long offset = random.Next(Size - data.Length);
                    await (random.Next(3) switch
                    {
                        0 => disk.ZeroAsync(offset, data.Length, RequestFlags.MayTrim, default),
                        _ => disk.WriteAsync(data, offset, RequestFlags.None, default),
                    });
                    Interlocked.Increment(ref done);
                    await Task.Yield();
                }
            }
        }))];
        SpinWait.SpinUntil(() => Volatile.Read(ref done) > 20);
        MirrorMember added = await mirror.AddAsync(second).AsTask().Soon();
        await added.InSync.Soon();
        int then = Volatile.Read(ref done);
        SpinWait.SpinUntil(() => Volatile.Read(ref done) > then + 20);
        await stop.CancelAsync();
        await Task.WhenAll(clients).Soon();

        Assert.That(added.Resynced, Is.EqualTo(Size));
        byte[] expected = await ContentOfAsync(first);
        byte[] copied = await ContentOfAsync(second);
        Assert.That(copied.AsSpan().SequenceEqual(expected), $"seed {seed}");
    }

    [Test]
    public async Task Holes_are_not_written()
    {
        var target = new ModelPlugin(TestData.Random(3 << 20));
        var mirror = new MirrorPlugin { Chains = [Memory(3 << 20)] };
        await using NbdBackend chain = NbdBackend.Compose(mirror);
        await using NextContext disk = await chain.OpenAsync();
        await disk.WriteAsync(new byte[] { 1 }, 2 << 20, RequestFlags.None, default);
        MirrorMember member = await mirror.AddAsync(NbdBackend.Compose(target));
        await member.InSync.Soon();

        Assert.That(target.TakeCalls(), Does.Not.Contain("write 0+1048576").And.Some.StartsWith("zero 0+2097152"));
        Assert.That(target.Data.AsSpan().ContainsAnyExcept((byte)0));
        Assert.That(target.Data.AsSpan(0, 2 << 20).ContainsAnyExcept((byte)0), Is.False);
        Assert.That(target.Stable, Is.EqualTo(target.Data), "it is flushed before it is in sync");
    }

    [Test]
    public async Task A_huge_sparse_disk_is_in_sync_soon()
    {
        var mirror = new MirrorPlugin { Chains = [Memory(1L << 42)] };
        await using NbdBackend chain = NbdBackend.Compose(mirror);
        await chain.StartAsync();
        MirrorMember member = await mirror.AddAsync(Memory(1L << 42));
        await member.InSync.Soon();
        Assert.That(member.Resynced, Is.EqualTo(1L << 42));
    }

    [Test]
    public async Task A_member_that_failed_is_recovered()
    {
        ModelPlugin a = new(TestData.Random(4096)), b = new(TestData.Random(4096));
        var changes = new List<(MirrorMember, MirrorMemberState)>();
        var mirror = new MirrorPlugin
        {
            Chains = [NbdBackend.Compose(a), NbdBackend.Compose(b)],
            MemberChanged = member => changes.Add((member, member.State)),
        };
        await using NbdBackend chain = NbdBackend.Compose(mirror);
        await using NextContext disk = await chain.OpenAsync();
        MirrorMember failed = mirror.Members[1];
        Assert.That(async () => await mirror.RecoverAsync(failed), Throws.InvalidOperationException);
        b.Before = _ => throw new IOException("unplugged");
        await disk.WriteAsync(new byte[100], 50, RequestFlags.None, default);
        b.Before = null;
        MirrorMember recovered = await mirror.RecoverAsync(failed);
        await recovered.InSync.Soon();

        Assert.That(b.Data, Is.EqualTo(a.Data));
        Assert.That(failed.State, Is.EqualTo(MirrorMemberState.Removed));
        Assert.That(async () => await mirror.RecoverAsync(failed), Throws.ArgumentException);
        Assert.That(mirror.Members[1], Is.SameAs(recovered));
        Assert.That(
            changes,
            Is.EqualTo(new[] { (failed, MirrorMemberState.Failed), (recovered, MirrorMemberState.InSync) }));
        a.Before = _ => throw new IOException("unplugged");
        await disk.WriteAsync(new byte[] { 8 }, 0, RequestFlags.None, default);
        Assert.That(await TestData.ReadAsync(disk, 0, 1), Is.EqualTo(new byte[] { 8 }));
    }

    [Test]
    public async Task A_member_is_removed_and_its_chain_ends_but_never_the_last()
    {
        var recorder = new CallRecorder();
        var mirror = new MirrorPlugin
        {
            Chains = [NbdBackend.Compose(new RecordingPlugin(recorder)), Memory(65_536)],
        };
        await using NbdBackend chain = NbdBackend.Compose(mirror);
        await using NextContext disk = await chain.OpenAsync();
        MirrorMember member = mirror.Members[0];
        await mirror.RemoveAsync(member);

        Assert.That(recorder.Count("plugin", "cleanup"), Is.EqualTo(1));
        recorder.AssertBalanced();
        Assert.That(async () => await mirror.RemoveAsync(member), Throws.ArgumentException);
        Assert.That(async () => await mirror.RemoveAsync(mirror.Members[0]), Throws.InvalidOperationException);
        await disk.WriteAsync(new byte[1], 0, RequestFlags.None, default);
    }

    [Test]
    public async Task A_chain_that_does_not_fit_is_not_added()
    {
        var recorder = new CallRecorder();
        var mirror = new MirrorPlugin { Chains = [NbdBackend.Compose(new ModelPlugin(new byte[4096]))] };
        await using NbdBackend chain = NbdBackend.Compose(mirror);
        Assert.That(async () => await mirror.AddAsync(Memory()), Throws.InvalidOperationException);
        await using NextContext disk = await chain.OpenAsync();
        NbdExportInfo all = ModelPlugin.Everything;
        Assert.That(async () => await mirror.AddAsync(Memory(4095)), Throws.InvalidOperationException.With.Message.Contains("4095"));
        Assert.That(
            async () => await mirror.AddAsync(NbdBackend.Compose(new ModelPlugin(new byte[4096], all with { CanWrite = false }))),
            Throws.InvalidOperationException.With.Message.Contains("written"));
        var plain = new RecordingPlugin(recorder) { Info = (_, info) => info with { CanMultiConn = false } };
        Assert.That(
            async () => await mirror.AddAsync(NbdBackend.Compose(plain)),
            Throws.InvalidOperationException.With.Message.Contains("several connections"));
        Assert.That(async () => await mirror.AddAsync(mirror.Members[0].Chain), Throws.ArgumentException);

        Assert.That(mirror.Members, Has.Count.EqualTo(1));
        Assert.That(recorder.Count("plugin", "cleanup"), Is.EqualTo(1));
        recorder.AssertBalanced();
    }

    [Test]
    public async Task A_target_or_a_source_that_fails_meanwhile_is_dropped([Values] bool source)
    {
        ModelPlugin a = new(TestData.Random(4096)), b = new([.. a.Data]), c = new(new byte[4096]);
        var mirror = new MirrorPlugin { Chains = [NbdBackend.Compose(a), NbdBackend.Compose(b)] };
        await using NbdBackend chain = NbdBackend.Compose(mirror);
        await chain.StartAsync();
        (source ? a : c).Before = call
            => call.StartsWith(source ? "read" : "write", StringComparison.Ordinal) ? throw new IOException("bad") : Task.CompletedTask;
        MirrorMember member = await mirror.AddAsync(NbdBackend.Compose(c));
        if (source)
        {
            await member.InSync.Soon();
            Assert.That(mirror.Members[0].State, Is.EqualTo(MirrorMemberState.Failed));
            Assert.That(c.Data, Is.EqualTo(b.Data));
        }
        else
        {
            Assert.That(async () => await member.InSync.Soon(), Throws.InstanceOf<IOException>());
            Assert.That(member.State, Is.EqualTo(MirrorMemberState.Failed));
            Assert.That(mirror.Members[0].State, Is.EqualTo(MirrorMemberState.InSync));
        }
    }

    [Test]
    public async Task The_rate_is_kept_and_a_stop_does_not_wait_for_the_end()
    {
        var time = new FakeTimeProvider();
        var mirror = new MirrorPlugin
        {
            Chains = [NbdBackend.Compose(new ModelPlugin(TestData.Random(4 << 20)))],
            TimeProvider = time,
            ResyncRate = 1 << 20,
        };
        NbdBackend chain = NbdBackend.Compose(mirror);
        await chain.StartAsync();
        MirrorMember member = await mirror.AddAsync(Memory(4 << 20));
        for (int i = 1; i <= 2; i++)
        {
            await time.WaitForTimersAsync();
            Assert.That(time.NextTimer, Is.EqualTo(TimeSpan.FromSeconds(1)));
            Assert.That(member.State, Is.EqualTo(MirrorMemberState.Resyncing));
            time.Advance(TimeSpan.FromSeconds(1));
        }
        await time.WaitForTimersAsync();
        await chain.DisposeAsync().AsTask().Soon();
        Assert.That(async () => await member.InSync.Soon(), Throws.InstanceOf<OperationCanceledException>());
        Assert.That(member.Resynced, Is.EqualTo(2 << 20));
    }

    [Test]
    public async Task Members_without_multi_conn_are_copied_through_their_caches()
    {
        // Each context sees what others wrote only when they have flushed it.
        var source = new PrivateCachePlugin(new byte[4096]);
        var target = new PrivateCachePlugin(new byte[4096]);
        var mirror = new MirrorPlugin { Chains = [NbdBackend.Compose(source)] };
        await using NbdBackend chain = NbdBackend.Compose(mirror);
        await using (NextContext disk = await chain.OpenAsync())
        {
            await disk.WriteAsync(new byte[] { 1, 2, 3 }, 10, RequestFlags.None, default);
            MirrorMember member = await mirror.AddAsync(NbdBackend.Compose(target));
            await member.InSync.Soon();
            await disk.WriteAsync(new byte[] { 4 }, 11, RequestFlags.None, default);
            await disk.FlushAsync(default);
        }
        Assert.That(target.Data[10..13], Is.EqualTo(new byte[] { 1, 4, 3 }));
        Assert.That(source.Data, Is.EqualTo(target.Data));
    }

    [Test]
    public async Task At_the_start_the_first_member_is_copied_if_asked()
    {
        ModelPlugin a = new(TestData.Random(4096)), b = new(new byte[4096]);
        var mirror = new MirrorPlugin { Chains = [NbdBackend.Compose(a), NbdBackend.Compose(b)], ResyncAtStart = true };
        await using NbdBackend chain = NbdBackend.Compose(mirror);
        await chain.StartAsync();
        await mirror.Members[1].InSync.Soon();
        Assert.That(b.Data, Is.EqualTo(a.Data));
    }

    /// <summary>A disk whose contexts keep what they write to themselves until they are flushed.</summary>
    private sealed class PrivateCachePlugin(byte[] data) : INbdPlugin
    {
        public byte[] Data => data;

        public string Name => "private";

        public ThreadModel ThreadModel => ThreadModel.SerializeAllRequests;

        public ValueTask<INbdPluginHandle> OpenAsync(NbdOpenContext context, CancellationToken cancellationToken)
            => new(new Handle(data));

        private sealed class Handle(byte[] data) : INbdPluginHandle
        {
            private readonly Dictionary<long, byte> _dirty = [];

            public ValueTask<NbdExportInfo> GetInfoAsync(CancellationToken cancellationToken)
                => new(new NbdExportInfo { Size = data.Length, CanWrite = true, CanFlush = true });

            public ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
            {
                for (int i = 0; i < buffer.Length; i++)
                {
                    buffer.Span[i] = _dirty.TryGetValue(offset + i, out byte own) ? own : data[offset + i];
                }
                return default;
            }

            public ValueTask WriteAsync(
                ReadOnlyMemory<byte> bytes, long offset, RequestFlags flags, CancellationToken cancellationToken)
            {
                for (int i = 0; i < bytes.Length; i++)
                {
                    _dirty[offset + i] = bytes.Span[i];
                }
                return default;
            }

            public ValueTask FlushAsync(CancellationToken cancellationToken)
            {
                foreach ((long at, byte value) in _dirty)
                {
                    data[at] = value;
                }
                _dirty.Clear();
                return default;
            }
        }
    }
}
