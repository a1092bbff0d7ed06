using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public sealed class PolicyFilterTests
{
    private static readonly CancellationToken None = CancellationToken.None;

    private readonly CallRecorder _calls = new();
    private readonly RecordingPlugin _plugin;
    private readonly PolicyFilter _filter = new();

    public PolicyFilterTests() => _plugin = new RecordingPlugin(_calls);

    [Test]
    public async Task It_sees_every_request_as_the_client_made_it()
    {
        // What is emulated below is one request here.
        _plugin.Info = (_, info) => info with
        {
            CanZero = Support.Emulate,
            CanCache = Support.Emulate,
            CanFua = Support.Emulate,
            CanExtents = false,
        };
        var seen = new List<string>();
        _filter.Decide = (ref PolicyRequest request) =>
        {
            seen.Add($"{request.Context.ExportName} {request.Operation} {request.Offset}+{request.Length} {request.Flags} {request.Data.Length}");
            return null;
        };
        await using NbdBackend chain = NbdBackend.Compose(_plugin, _filter);
        await using NextContext disk = await chain.OpenAsync("disk");
        await AllAsync(disk);
        Assert.That(seen, Is.EqualTo(new[]
        {
            "disk Read 1+2 None 0", "disk Write 3+4 Fua 4", "disk Trim 5+6 Fua 0", "disk Zero 7+8 MayTrim 0", "disk Cache 9+10 None 0",
            "disk Extents 11+12 RequestOne 0", "disk Flush 0+0 None 0", "disk Read 13+14 None 0",
        }));
        Assert.That(_calls.Count("plugin", "flush"), Is.EqualTo(3), "two of them emulate FUA");
    }

    [Test]
    public async Task What_it_refuses_does_not_reach_the_layer_below([Values] RequestOperation refused)
    {
        _filter.Decide = (ref PolicyRequest request) =>
        {
            request.Reason = "not today";
            return request.Operation == refused ? NbdError.NoSpace : null;
        };
        await using NbdBackend chain = NbdBackend.Compose(_plugin, _filter);
        await using NextContext disk = await chain.OpenAsync("disk");
        NbdException failure = TestData.Failure(() => AllAsync(disk));
        Assert.That((failure.Error, failure.Message), Is.EqualTo((NbdError.NoSpace, "not today")));
        Assert.That(_calls.Count("plugin", refused.ToString().ToLowerInvariant()), Is.Zero);
        _filter.Decide = null;
        await AllAsync(disk);
    }

    [Test]
    public async Task It_may_move_requests_and_change_their_flags()
    {
        _filter.Decide = (ref PolicyRequest request) =>
        {
            request.Offset += request.Operation is RequestOperation.Flush or RequestOperation.Extents ? 0 : 1000;
            request.Flags = request.Operation == RequestOperation.Write ? RequestFlags.None : request.Flags;
            return null;
        };
        TestData.Random(65_536).CopyTo(_plugin.Data, 0);
        await using NbdBackend chain = NbdBackend.Compose(_plugin, _filter);
        await using NextContext disk = await chain.OpenAsync("disk");
        Assert.That(await TestData.ReadAsync(disk, 5, 100), Is.EqualTo(_plugin.Data[1005..1105]));
        _calls.Clear();
        await AllAsync(disk);
        Assert.That(_calls.Calls.Select(call => $"{call.Callback} {call.Offset}+{call.Length} {call.Flags}"), Is.EqualTo(new[]
        {
            "read 1001+2 None", "write 1003+4 None", "trim 1005+6 Fua", "zero 1007+8 MayTrim", "cache 1009+10 None",
            "extents 11+12 RequestOne", "flush 0+0 None", "read 1013+14 None",
        }));
    }

    [Test]
    public async Task It_may_replace_what_is_written_by_as_much()
    {
        _filter.Decide = (ref PolicyRequest request) =>
        {
            if (request.Operation == RequestOperation.Write)
            {
                request.Data = new byte[] { 7, 8, 9 };
            }
            return null;
        };
        await using NbdBackend chain = NbdBackend.Compose(_plugin, _filter);
        await using NextContext disk = await chain.OpenAsync("disk");
        await disk.WriteAsync(new byte[] { 1, 2, 3 }, 10, RequestFlags.None, None);
        Assert.That(_plugin.Data[10..13], Is.EqualTo(new byte[] { 7, 8, 9 }));
        Assert.That(
            async () => await disk.WriteAsync(new byte[] { 1, 2 }, 10, RequestFlags.None, None),
            Throws.InvalidOperationException.With.Message.Contains("more or less"));
    }

    [TestCase(-1)]
    [TestCase(65_536)]
    [TestCase(65_530)]
    [TestCase(long.MaxValue)]
    public async Task A_move_to_where_nothing_is_fails_the_request(long to)
    {
        _filter.Decide = (ref PolicyRequest request) =>
        {
            request.Offset = to;
            return null;
        };
        await using NbdBackend chain = NbdBackend.Compose(_plugin, _filter);
        await using NextContext disk = await chain.OpenAsync("disk");
        Assert.That(TestData.Failure(() => disk.ReadAsync(new byte[10], 0, None).AsTask()).Error, Is.EqualTo(NbdError.InvalidArgument));
        Assert.That(
            async () => await disk.ExtentsAsync(0, 10, RequestFlags.None, new ExtentList(0, 10), None),
            Throws.InvalidOperationException.With.Message.Contains("has to stay"));
    }

    [Test]
    public async Task A_read_that_is_moved_has_the_right_bytes_where_holes_travel_as_such()
    {
        var content = new byte[65_536];
        TestData.Random(4096).CopyTo(content, 32_768);
        await using NbdBackend chain = NbdBackend.Compose(
            new ModelPlugin(content, ModelPlugin.Everything with { CanReadSparse = Support.Emulate }), _filter);
        await using ChainServer server = await ChainServer.StartAsync(chain);
        WireClient client = await server.TransmitAsync(structured: true);
        _filter.Decide = (ref PolicyRequest request) =>
        {
            request.Offset = 32_768 + 4096 - request.Length;
            return null;
        };
        Assert.That(await client.ReadDataAsync(0, 8192), Is.EqualTo(content[28_672..36_864]));
    }

    [Test]
    public async Task What_it_throws_fails_the_request_and_nothing_else()
    {
        await using ChainServer server = await ChainServer.StartAsync(NbdBackend.Compose(_plugin, _filter));
        WireClient client = await server.TransmitAsync("");
        _filter.Decide = (ref PolicyRequest request) => throw new FormatException("a defect");
        await client.ExpectCallAsync(WireError.Io, Cmd.Read, 0, 512);
        _filter.Decide = (ref PolicyRequest request) => request.Context.Connection!.Id == 1 ? NbdError.PermissionDenied : null;
        await client.ExpectCallAsync(WireError.Perm, Cmd.Read, 0, 512);
        _filter.Decide = null;
        await client.ExpectAliveAsync(_plugin.Data);
    }

    private static async Task AllAsync(NextContext disk)
    {
        await disk.ReadAsync(new byte[2], 1, None);
        await disk.WriteAsync(new byte[4], 3, RequestFlags.Fua, None);
        await disk.TrimAsync(5, 6, RequestFlags.Fua, None);
        await disk.ZeroAsync(7, 8, RequestFlags.MayTrim, None);
        await disk.CacheAsync(9, 10, None);
        await disk.ExtentsAsync(11, 12, RequestFlags.RequestOne, new ExtentList(11, 23), None);
        await disk.FlushAsync(None);
        await disk.ReadSparseAsync(new byte[14], 13, new ExtentList(13, 27), None);
    }
}
