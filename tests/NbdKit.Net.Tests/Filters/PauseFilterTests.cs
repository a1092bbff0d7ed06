using System.Net.Sockets;
using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public class PauseFilterTests
{
    private static readonly CancellationToken None = CancellationToken.None;

    private readonly CallRecorder _calls = new();
    private readonly RecordingPlugin _plugin;

    public PauseFilterTests() => _plugin = new RecordingPlugin(_calls);

    [Test]
    public async Task Requests_of_every_kind_wait_and_go_on_when_resumed()
    {
        var filter = new PauseFilter();
        await using NbdBackend chain = NbdBackend.Compose(_plugin, filter);
        await using NextContext disk = await chain.OpenAsync("disk");
        _calls.Clear();
        await filter.PauseAsync();
        Assert.That(filter.IsPaused);
        Task[] requests =
        [
            disk.ReadAsync(new byte[1], 0, None).AsTask(),
            disk.WriteAsync(new byte[1], 0, RequestFlags.None, None).AsTask(),
            disk.FlushAsync(None).AsTask(),
            disk.TrimAsync(0, 1, RequestFlags.None, None).AsTask(),
            disk.ZeroAsync(0, 1, RequestFlags.None, None).AsTask(),
            disk.CacheAsync(0, 1, None).AsTask(),
            disk.ExtentsAsync(0, 1, RequestFlags.None, new ExtentList(0, 1), None).AsTask(),
        ];
        await using (NextContext other = await chain.OpenAsync("other").Soon())
        {
            Assert.That(other.Info.Size, Is.EqualTo(_plugin.Data.Length), "clients may come and leave");
        }
        Assert.That(requests.Where(request => request.IsCompleted), Is.Empty);
        Assert.That(_calls.Calls.Select(call => call.Callback), Is.EqualTo(new[] { "open", "info", "close" }));
        await filter.ResumeAsync();
        await Task.WhenAll(requests).Soon();
        Assert.That(filter.IsPaused, Is.False);
        Assert.That(_calls.Calls.Skip(3).Select(call => call.Callback), Is.EquivalentTo(
            new[] { "read", "write", "flush", "trim", "zero", "cache", "extents" }));
        Assert.That(disk.ReadAsync(new byte[1], 0, None).IsCompletedSuccessfully, "it costs nothing any more");
    }

    [Test]
    public async Task A_pause_waits_for_the_requests_under_way_failed_ones_included()
    {
        var filter = new PauseFilter();
        var gates = new Dictionary<long, Gate> { [0] = new(), [1] = new() };
        _plugin.Script.OnCall = (call, _) => call.Callback == "read" ? gates[call.Offset].PassAsync(None) : default;
        _plugin.Script.Fail("read", times: 1);
        await using NbdBackend chain = NbdBackend.Compose(_plugin, filter);
        await using NextContext disk = await chain.OpenAsync("disk");
        Task first = disk.ReadAsync(new byte[1], 0, None).AsTask();
        Task second = disk.ReadAsync(new byte[1], 1, None).AsTask();
        Task pause = filter.PauseAsync().AsTask();
        Task again = filter.PauseAsync().AsTask();
        gates[0].Open();
        Assert.That(async () => await first.Soon(), Throws.InstanceOf<NbdException>());
        Assert.That((pause.IsCompleted, again.IsCompleted, second.IsCompleted), Is.EqualTo((false, false, false)));
        gates[1].Open();
        await Task.WhenAll(second, pause, again).Soon();
        await filter.PauseAsync().Soon();
        await filter.ResumeAsync();
        await filter.ResumeAsync();
        await disk.WriteAsync(new byte[1], 0, RequestFlags.None, None).Soon();
    }

    [Test]
    public async Task A_request_that_throws_at_once_counts_as_ended()
    {
        var filter = new PauseFilter();
        var plugin = new DelegateThrower();
        await using NbdBackend chain = NbdBackend.Compose(plugin, filter);
        await using NextContext disk = await chain.OpenAsync("disk");
        Assert.That(async () => await disk.ReadAsync(new byte[1], 0, None), Throws.InstanceOf<NbdException>());
        await filter.PauseAsync().Soon();
    }

    [Test]
    public async Task A_request_that_waits_is_given_up_with_its_token()
    {
        var filter = new PauseFilter();
        await using NbdBackend chain = NbdBackend.Compose(_plugin, filter);
        await using NextContext disk = await chain.OpenAsync("disk");
        await filter.PauseAsync();
        using var gone = new CancellationTokenSource();
        Task read = disk.ReadAsync(new byte[1], 0, gone.Token).AsTask();
        await gone.CancelAsync();
        Assert.That(async () => await read.Soon(), Throws.InstanceOf<OperationCanceledException>());
        Assert.That(_calls.Count("plugin", "read"), Is.Zero);
        await filter.ResumeAsync();
        await filter.PauseAsync().Soon();
    }

    [Test]
    public async Task A_pause_that_is_given_up_lets_requests_go_on_unless_somebody_else_paused_too()
    {
        var filter = new PauseFilter();
        var gate = new Gate();
        _plugin.Script.OnCall = (call, _) => call.Callback == "read" ? gate.PassAsync(None) : default;
        await using NbdBackend chain = NbdBackend.Compose(_plugin, filter);
        await using NextContext disk = await chain.OpenAsync("disk");
        Task read = disk.ReadAsync(new byte[1], 0, None).AsTask();
        using var impatient = new CancellationTokenSource();
        Task pause = filter.PauseAsync(impatient.Token).AsTask();
        Task other = filter.PauseAsync().AsTask();
        await impatient.CancelAsync();
        Assert.That(async () => await pause.Soon(), Throws.InstanceOf<OperationCanceledException>());
        Assert.That(filter.IsPaused, "the other one still wants it");
        gate.Open();
        await read.Soon();
        await other.Soon();
        await filter.ResumeAsync();

        await filter.ResumeAsync();
        await disk.ReadAsync(new byte[1], 0, None).Soon();
    }

    [Test]
    public async Task A_pause_that_is_ended_before_all_is_quiet_says_so()
    {
        var filter = new PauseFilter();
        var gate = new Gate();
        _plugin.Script.OnCall = (call, _) => call.Callback == "read" ? gate.PassAsync(None) : default;
        await using NbdBackend chain = NbdBackend.Compose(_plugin, filter);
        await using NextContext disk = await chain.OpenAsync("disk");
        Task read = disk.ReadAsync(new byte[1], 0, None).AsTask();
        Task pause = filter.PauseAsync().AsTask();
        await filter.ResumeAsync();
        Assert.That(async () => await pause.Soon(), Throws.InvalidOperationException);
        Assert.That(filter.IsPaused, Is.False);
        gate.Open();
        await read.Soon();
    }

    [Test]
    public async Task Once_quiet_every_open_export_that_can_be_flushed_is_flushed()
    {
        var filter = new PauseFilter { FlushesWhenQuiet = true };
        _plugin.Info = (context, info) => info with { CanFlush = context != 2 };
        var gate = new Gate();
        _plugin.Script.OnCall = (call, _) => call.Callback == "write" ? gate.PassAsync(None) : default;
        await using NbdBackend chain = NbdBackend.Compose(_plugin, filter);
        await using NextContext first = await chain.OpenAsync("disk");
        await using NextContext unflushed = await chain.OpenAsync("disk");
        await using NextContext third = await chain.OpenAsync("disk");
        await (await chain.OpenAsync("disk")).CloseAsync();
        Task write = first.WriteAsync(new byte[1], 0, RequestFlags.None, None).AsTask();
        Task pause = filter.PauseAsync().AsTask();
        Assert.That(_calls.Count("plugin", "flush"), Is.Zero);
        gate.Open();
        await pause.Soon();
        await write.Soon();
        Assert.That(_calls.Calls.Where(call => call.Callback == "flush").Select(call => call.Context), Is.EquivalentTo(new[] { 1, 3 }));

        await filter.ResumeAsync();
        _plugin.Script.Fail("flush", times: 1, NbdError.NoSpace);
        Assert.That(TestData.Failure(async () => await filter.PauseAsync()).Error, Is.EqualTo(NbdError.NoSpace));
        Assert.That(filter.IsPaused, Is.False);
    }

    [Test]
    public async Task Nothing_runs_while_it_is_paused_whatever_the_timing()
    {
        var filter = new PauseFilter();
        int inside = 0;
        _plugin.Script.OnCall = async (_, _) =>
        {
            Interlocked.Increment(ref inside);
            await Task.Yield();
            Interlocked.Decrement(ref inside);
        };
        await using NbdBackend chain = NbdBackend.Compose(_plugin, filter);
        await using NextContext disk = await chain.OpenAsync("disk");
        using var stop = new CancellationTokenSource();
        Task[] workers = [.. Enumerable.Range(0, 4).Select(worker => Task.Run(async () =>
        {
            while (!stop.IsCancellationRequested)
            {
                await disk.ReadAsync(new byte[1], worker, None);
            }
        }))];
        for (int round = 0; round < 200; round++)
        {
            await filter.PauseAsync().Soon();
            Assert.That(Volatile.Read(ref inside), Is.Zero, $"round {round}");
            await Task.Yield();
            Assert.That(Volatile.Read(ref inside), Is.Zero, $"round {round}");
            await filter.ResumeAsync();
        }
        await stop.CancelAsync();
        await Task.WhenAll(workers).Soon();
    }

    [Test]
    public async Task The_control_socket_pauses_and_resumes_and_is_for_its_user_alone()
    {
        using var scratch = new ScratchDirectory();
        string path = Path.Combine(scratch.Path, "pause.sock");
        var filter = new PauseFilter { ControlPath = path };
        var gate = new Gate();
        _plugin.Script.OnCall = (call, _) => call.Callback == "read" ? gate.PassAsync(None) : default;
        NbdBackend chain = NbdBackend.Compose(_plugin, filter);
        await using NextContext disk = await chain.OpenAsync("disk");
        if (!OperatingSystem.IsWindows())
        {
            Assert.That(File.GetUnixFileMode(path), Is.EqualTo(UnixFileMode.UserRead | UnixFileMode.UserWrite));
        }
        Task read = disk.ReadAsync(new byte[1], 0, None).AsTask();
        await gate.ArrivedAsync();
        using Socket control = await ConnectAsync(path);
        using Socket second = await ConnectAsync(path);
        await control.SendAsync("p"u8.ToArray());
        await SpinUntil(() => filter.IsPaused);
        Assert.That(await CommandAsync(second, "?"), Is.EqualTo("X"));
        Assert.That(control.Available, Is.Zero, "a request is under way");
        gate.Open();
        Assert.That(await ReceiveAsync(control), Is.EqualTo("P"));
        await read;
        Task write = disk.WriteAsync(new byte[1], 0, RequestFlags.None, None).AsTask();
        control.Dispose();
        Assert.That(write.IsCompleted, Is.False, "the pause does not end with who began it");
        Assert.That(await CommandAsync(second, "r"), Is.EqualTo("R"));
        await write.Soon();
        await disk.CloseAsync();
        await chain.DisposeAsync().Soon();
        Assert.That(File.Exists(path), Is.False);
        Assert.That(await second.ReceiveAsync(new byte[1]), Is.Zero);
    }

    [Test]
    public async Task A_control_socket_that_cannot_be_made_fails_the_start_and_what_is_there_stays()
    {
        using var scratch = new ScratchDirectory();
        string path = Path.Combine(scratch.Path, "pause.sock");
        await File.WriteAllTextAsync(path, "mine");
        NbdBackend chain = NbdBackend.Compose(_plugin, new PauseFilter { ControlPath = path });
        Assert.That(async () => await chain.StartAsync(), Throws.InstanceOf<SocketException>());
        Assert.That(await File.ReadAllTextAsync(path), Is.EqualTo("mine"));
    }

    [Test]
    public void Parameters_and_bad_values()
    {
        var filter = (PauseFilter)PauseFilter.Entry.Create(
            new NbdParameters("pause", [new("pause-control", "some.sock"), new("pause-flush", "true")]));
        Assert.That((filter.ControlPath, filter.FlushesWhenQuiet), Is.EqualTo((Path.GetFullPath("some.sock"), true)));
        filter = (PauseFilter)PauseFilter.Entry.Create(new NbdParameters("pause", []));
        Assert.That((filter.ControlPath, filter.FlushesWhenQuiet), Is.EqualTo((default(string), false)));
        Assert.That(() => new PauseFilter { ControlPath = " " }, Throws.ArgumentException);
    }

    private static async Task<Socket> ConnectAsync(string path)
    {
        var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        await socket.ConnectAsync(new UnixDomainSocketEndPoint(path));
        return socket;
    }

    private static async Task<string> CommandAsync(Socket socket, string command)
    {
        await socket.SendAsync(System.Text.Encoding.ASCII.GetBytes(command));
        return await ReceiveAsync(socket);
    }

    private static async Task<string> ReceiveAsync(Socket socket)
    {
        byte[] answer = new byte[10];
        int length = await socket.ReceiveAsync(answer).Soon();
        return System.Text.Encoding.ASCII.GetString(answer, 0, length);
    }

    private static async Task SpinUntil(Func<bool> condition)
    {
        using var deadline = new CancellationTokenSource(WireClient.Deadline);
        while (!condition())
        {
            deadline.Token.ThrowIfCancellationRequested();
            await Task.Yield();
        }
    }

    private sealed class DelegateThrower : INbdPlugin, INbdPluginHandle
    {
        public string Name => "thrower";

        public ThreadModel ThreadModel => ThreadModel.Parallel;

        public ValueTask<INbdPluginHandle> OpenAsync(NbdOpenContext context, CancellationToken cancellationToken) => new(this);

        public ValueTask<NbdExportInfo> GetInfoAsync(CancellationToken cancellationToken) => new(new NbdExportInfo { Size = 1 });

        public ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
            => throw new NbdException(NbdError.IoError, "at once");
    }
}
