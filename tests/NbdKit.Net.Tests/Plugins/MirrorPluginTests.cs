using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Plugins;

public class MirrorPluginTests
{
    private static readonly IOException Broken = new("broken");

    private static MirrorPlugin Mirror(params INbdPlugin[] members)
        => new() { Chains = [.. members.Select(member => NbdBackend.Compose(member))] };

    private static ModelPlugin Model(int size = 4096, NbdExportInfo? info = null) => new(new byte[size], info);

    [Test]
    public async Task Changes_go_to_all_and_reads_to_each_in_turn()
    {
        ModelPlugin a = Model(), b = Model();
        await using NbdBackend chain = NbdBackend.Compose(Mirror(a, b));
        await using NextContext disk = await chain.OpenAsync();
        await disk.WriteAsync(new byte[] { 1, 2 }, 5, RequestFlags.Fua, default);
        await disk.ZeroAsync(6, 1, RequestFlags.None, default);
        await disk.TrimAsync(100, 10, RequestFlags.None, default);
        await disk.FlushAsync(default);
        for (int i = 0; i < 4; i++)
        {
            Assert.That(await TestData.ReadAsync(disk, 5, 2), Is.EqualTo(new byte[] { 1, 0 }));
        }
        string[] expected =
        [
            "write 5+2 Fua", "zero 6+1", "trim 100+10", "flush", "read 5+2", "read 5+2",
        ];
        Assert.That(a.TakeCalls(), Is.EqualTo(expected));
        Assert.That(b.TakeCalls(), Is.EqualTo(expected));
    }

    [Test]
    public async Task Reads_go_to_the_first_if_that_is_the_policy()
    {
        ModelPlugin a = Model(), b = Model();
        await using NbdBackend chain = NbdBackend.Compose(new MirrorPlugin
        {
            Chains = [NbdBackend.Compose(a), NbdBackend.Compose(b)],
            ReadPolicy = MirrorReadPolicy.First,
        });
        await using NextContext disk = await chain.OpenAsync();
        await TestData.ReadAsync(disk, 0, 1);
        await TestData.ReadAsync(disk, 0, 1);

        Assert.That(b.TakeCalls(), Is.Empty);
    }

    [Test]
    public async Task A_member_that_fails_a_change_is_dropped_and_reported([Values("write", "zero", "trim", "flush")] string operation)
    {
        var changed = new List<MirrorMember>();
        ModelPlugin a = Model(), b = Model();
        var mirror = new MirrorPlugin { Chains = [NbdBackend.Compose(a), NbdBackend.Compose(b)], MemberChanged = changed.Add };
        await using ChainServer server = await ChainServer.StartAsync(NbdBackend.Compose(mirror));
        WireClient client = await server.TransmitAsync();
        await client.WriteDataAsync(0, [1]);
        a.Before = call => call.StartsWith(operation, StringComparison.Ordinal) ? throw Broken : Task.CompletedTask;
        ushort command = operation switch { "write" => Cmd.Write, "zero" => Cmd.WriteZeroes, "trim" => Cmd.Trim, _ => Cmd.Flush };
        await client.ExpectCallAsync(
            WireError.Ok, command, operation == "flush" ? 0u : 1u, operation == "flush" ? 0u : 1u, 0,
            operation == "write" ? [9] : null);

        Assert.That(mirror.Members[0].State, Is.EqualTo(MirrorMemberState.Failed));
        Assert.That(mirror.Members[0].Failure, Is.SameAs(Broken));
        Assert.That(changed, Is.EqualTo(new[] { mirror.Members[0] }));
        Assert.That(server.Warnings.Single(), Does.Contain("1 in sync are left"));
        a.TakeCalls();
        await client.WriteDataAsync(2, [3]);
        Assert.That(await client.ReadDataAsync(0, 3), Is.EqualTo(new byte[] { 1, operation == "write" ? (byte)9 : (byte)0, 3 }));
        Assert.That(a.TakeCalls(), Is.Empty, "a member that failed is left alone");
    }

    [Test]
    public async Task A_read_that_fails_is_tried_on_the_others()
    {
        ModelPlugin a = Model(), b = Model(), c = Model();
        c.Data[0] = 7;
        a.Before = b.Before = call => call.StartsWith("read", StringComparison.Ordinal) ? throw Broken : Task.CompletedTask;
        MirrorPlugin mirror = Mirror(a, b, c);
        await using NbdBackend chain = NbdBackend.Compose(mirror);
        await using NextContext disk = await chain.OpenAsync();
        for (int i = 0; i < 4; i++)
        {
            Assert.That(await TestData.ReadAsync(disk, 0, 1), Is.EqualTo(new byte[] { 7 }));
        }
        Assert.That(
            mirror.Members.Select(member => member.State),
            Is.EqualTo(new[] { MirrorMemberState.Failed, MirrorMemberState.Failed, MirrorMemberState.InSync }));
    }

    [Test]
    public async Task A_read_that_fails_everywhere_fails_and_nobody_is_dropped()
    {
        ModelPlugin a = Model(), b = Model();
        a.Before = b.Before = _ => throw new NbdException(NbdError.IoError, "bad sector");
        MirrorPlugin mirror = Mirror(a, b);
        await using NbdBackend chain = NbdBackend.Compose(mirror);
        await using NextContext disk = await chain.OpenAsync();

        Assert.That(TestData.Failure(async () => await TestData.ReadAsync(disk, 0, 1)).Message, Is.EqualTo("bad sector"));
        Assert.That(mirror.Members.All(member => member.State == MirrorMemberState.InSync));
    }

    [Test]
    public async Task A_read_that_was_given_up_drops_nobody()
    {
        var gate = new Gate();
        using var leaving = new CancellationTokenSource();
        var a = new RecordingPlugin(new CallRecorder());
        a.Script.OnCall = (call, token) => call.Callback == "read" ? gate.PassAsync(token) : default;
        MirrorPlugin mirror = Mirror(a, new MemoryPlugin { Size = 65_536 });
        await using NbdBackend chain = NbdBackend.Compose(mirror);
        await using NextContext disk = await chain.OpenAsync();
        Task[] reads = [.. Enumerable.Range(0, 2).Select(_ => disk.ReadAsync(new byte[1], 0, leaving.Token).AsTask())];
        await gate.ArrivedAsync();
        await leaving.CancelAsync();
        Assert.That(async () => await Task.WhenAll(reads).Soon(), Throws.InstanceOf<OperationCanceledException>());
        Assert.That(mirror.Members.All(member => member.State == MirrorMemberState.InSync));
    }

    [Test]
    public async Task A_write_that_its_client_gave_up_is_finished_everywhere()
    {
        var gate = new Gate();
        using var leaving = new CancellationTokenSource();
        ModelPlugin a = Model();
        var slow = new RecordingPlugin(new CallRecorder()) { Data = new byte[4096] };
        slow.Script.OnCall = (call, token) => call.Callback == "write" ? gate.PassAsync(token) : default;
        MirrorPlugin mirror = Mirror(a, slow);
        await using NbdBackend chain = NbdBackend.Compose(mirror);
        await using NextContext disk = await chain.OpenAsync();
        Task writing = disk.WriteAsync(new byte[] { 1 }, 0, RequestFlags.None, leaving.Token).AsTask();
        await gate.ArrivedAsync();
        await leaving.CancelAsync();
        gate.Open();
        await writing.Soon();
        Assert.That((a.Data[0], slow.Data[0]), Is.EqualTo((1, 1)));
        Assert.That(mirror.Members.All(member => member.State == MirrorMemberState.InSync));
    }

    [Test]
    public async Task A_change_that_all_refuse_drops_nobody_and_one_that_fails_everywhere_all_but_one([Values] bool refuse)
    {
        ModelPlugin a = Model(), b = Model();
        a.Before = b.Before = call => call.StartsWith("write", StringComparison.Ordinal)
            ? throw new NbdException(refuse ? NbdError.PermissionDenied : NbdError.NoSpace, "no")
            : Task.CompletedTask;
        MirrorPlugin mirror = Mirror(a, b);
        await using NbdBackend chain = NbdBackend.Compose(mirror);
        await using NextContext disk = await chain.OpenAsync();

        Assert.That(
            TestData.Failure(async () => await disk.WriteAsync(new byte[1], 0, RequestFlags.None, default)).Error,
            Is.EqualTo(refuse ? NbdError.PermissionDenied : NbdError.NoSpace));
        Assert.That(mirror.Members[0].State, Is.EqualTo(MirrorMemberState.InSync));
        Assert.That(mirror.Members[1].State, Is.EqualTo(refuse ? MirrorMemberState.InSync : MirrorMemberState.Failed));
    }

    [Test]
    public async Task A_fast_zero_is_declined_by_all_or_done_by_all([Values] bool all)
    {
        var slow = new ModelPlugin([1, 1]) { DeclinesZero = true };
        var other = new ModelPlugin([1, 1]) { DeclinesZero = all };
        MirrorPlugin mirror = Mirror(slow, other);
        await using NbdBackend chain = NbdBackend.Compose(mirror);
        await using NextContext disk = await chain.OpenAsync();
        if (all)
        {
            Assert.That(
                TestData.Failure(async () => await disk.ZeroAsync(0, 1, RequestFlags.FastZero, default)).Error,
                Is.EqualTo(NbdError.NotSupported));
        }
        else
        {
            await disk.ZeroAsync(0, 1, RequestFlags.FastZero, default);
        }
        Assert.That(slow.Data, Is.EqualTo(new byte[] { all ? (byte)1 : (byte)0, 1 }));
        Assert.That(other.Data, Is.EqualTo(slow.Data));
        Assert.That(mirror.Members.All(member => member.State == MirrorMemberState.InSync));
    }

    [Test]
    public async Task Extents_are_true_of_all_members()
    {
        byte[] data = new byte[2048];
        data.AsSpan(512, 512).Fill(1);
        await using NbdBackend chain = NbdBackend.Compose(Mirror(new MemoryPlugin { Size = 2048 }, new ModelPlugin(data)));
        await using NextContext disk = await chain.OpenAsync();
        ExtentList extents = await disk.ExtentsFullAsync(0, 2048, ExtentList.BaseAllocation, default);

        Assert.That(
            extents.Where(e => e.Status == ExtentStatus.Data), Is.EqualTo(new[] { new Extent(512, 512, ExtentStatus.Data) }));
        Assert.That(extents.Covered, Is.EqualTo(2048));
    }

    [Test]
    public async Task The_size_is_that_of_the_smallest_and_fits_the_blocks_of_the_others()
    {
        NbdExportInfo blocks = ModelPlugin.Everything with { BlockSize = new BlockSize(512, 512) };
        await using NbdBackend chain = NbdBackend.Compose(Mirror(Model(1000), Model(4096, blocks)));
        await using NextContext disk = await chain.OpenAsync();

        Assert.That(disk.Info.Size, Is.EqualTo(512));
        Assert.That(disk.Info.BlockSize.Minimum, Is.EqualTo(512));
    }

    [Test]
    public async Task The_disk_can_do_what_all_members_can()
    {
        NbdExportInfo weak = ModelPlugin.Everything with { CanMultiConn = false, CanTrim = false, CanFua = Support.None };
        await using NbdBackend chain = NbdBackend.Compose(Mirror(Model(), Model(info: weak)));
        await using NextContext disk = await chain.OpenAsync();

        Assert.That(
            (disk.Info.CanMultiConn, disk.Info.CanTrim, disk.Info.CanFua), Is.EqualTo((false, false, Support.Emulate)));
    }

    [Test]
    public async Task A_member_that_does_not_open_is_dropped_unless_it_refused_the_client()
    {
        var recorder = new CallRecorder();
        var bad = new RecordingPlugin(recorder) { Data = new byte[4096] };
        MirrorPlugin mirror = Mirror(bad, Model());
        await using NbdBackend chain = NbdBackend.Compose(mirror);
        await chain.StartAsync();
        bad.Script.Fail("open", error: NbdError.PermissionDenied);
        Assert.That(
            TestData.Failure(async () => await chain.OpenAsync()).Error, Is.EqualTo(NbdError.PermissionDenied));
        Assert.That(mirror.Members[0].State, Is.EqualTo(MirrorMemberState.InSync));
        bad.Script.Fail("open");
        await using NextContext disk = await chain.OpenAsync();
        await disk.WriteAsync(new byte[1], 0, RequestFlags.None, default);
        Assert.That(mirror.Members[0].State, Is.EqualTo(MirrorMemberState.Failed));
        recorder.AssertBalanced();
    }

    [Test]
    public async Task Overlapping_writes_of_several_clients_leave_members_alike([Values(1, 2)] int seed)
    {
        ModelPlugin[] members = [.. Enumerable.Range(0, 3).Select(i => new ModelPlugin(new byte[2048], null, new Random(i))
        {
            Yields = true,
            RecordsCalls = false,
        })];
        await using NbdBackend chain = NbdBackend.Compose(Mirror(members));
        await Task.WhenAll(Enumerable.Range(0, 4).Select(i => Task.Run(async () =>
        {
            var random = new Random((seed * 10) + i);
            await using NextContext disk = await chain.OpenAsync();
            for (int n = 0; n < 200; n++)
            {
                byte[] data = new byte[random.Next(1, 500)];
                data.AsSpan().Fill((byte)random.Next(256));
                await disk.WriteAsync(data, random.Next(2048 - data.Length), RequestFlags.None, default);
            }
        }))).Soon();

        Assert.That(members[1].Data, Is.EqualTo(members[0].Data), $"seed {seed}");
        Assert.That(members[2].Data, Is.EqualTo(members[0].Data), $"seed {seed}");
    }

    [Test]
    public async Task Members_of_one_connection_only_are_refused()
    {
        var narrow = new ModelPlugin(new byte[1]) { ThreadModel = ThreadModel.SerializeConnections };
        Assert.That(() => Mirror(narrow), Throws.ArgumentException);
        MirrorPlugin mirror = Mirror(Model());
        await using NbdBackend chain = NbdBackend.Compose(mirror);
        await chain.StartAsync();
        Assert.That(async () => await mirror.AddAsync(NbdBackend.Compose(narrow)), Throws.ArgumentException);
        Assert.That(() => new MirrorPlugin { Chains = [], }, Throws.ArgumentException);
        Assert.That(() => mirror.ResyncRate = -1, Throws.InstanceOf<ArgumentOutOfRangeException>());
    }

    [Test]
    public async Task The_catalogue_makes_it_of_files()
    {
        using var folder = new ScratchDirectory();
        string a = folder.WriteHole("a", 1024);
        string b = folder.WriteHole("b", 1024);
        await using (NbdBackend chain = new NbdCatalogue().Compose(
            "mirror", [], [new("", a), new("file", b), new("read", "first"), new("resync", "yes")]))
        {
            await using NextContext disk = await chain.OpenAsync();
            await disk.WriteAsync(new byte[] { 1, 2 }, 511, RequestFlags.None, default);
        }
        Assert.That(File.ReadAllBytes(b), Is.EqualTo(File.ReadAllBytes(a)));
        Assert.That(File.ReadAllBytes(b)[511], Is.EqualTo(1));
    }
}
