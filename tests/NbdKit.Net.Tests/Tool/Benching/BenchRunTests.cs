using NbdKit.Tests.Testing;
using NbdKit.Tool;
using NbdKit.Tool.Benching;

namespace NbdKit.Tests.Tool.Benching;

public sealed class BenchRunTests
{
    private const int Size = 65_536;

    [Test]
    public async Task Requests_are_made_and_measured_until_the_time_is_over([Values] bool random, [Values] bool write)
    {
        var time = new FakeTimeProvider();
        var plugin = new ModelPlugin(new byte[Size])
        {
            Before = _ =>
            {
                time.Advance(TimeSpan.FromMilliseconds(1));
                return Task.CompletedTask;
            },
        };
        await using CopyDisk disk = await CopyDisk.OpenAsync(plugin);
        var options = new BenchOptions
        {
            Depth = 1,
            Duration = TimeSpan.FromMilliseconds(100),
            Pattern = (random, write) switch
            {
                (false, false) => BenchPattern.Read,
                (false, true) => BenchPattern.Write,
                (true, false) => BenchPattern.RandomRead,
                _ => BenchPattern.RandomWrite,
            },
        };

        (LatencyHistogram latencies, TimeSpan elapsed) = await new BenchRun(disk.Contexts, options, time)
            .RunAsync(CancellationToken.None);

        string[] calls = plugin.TakeCalls();
        string word = write ? "write" : "read";
        Assert.Multiple(() =>
        {
            Assert.That(latencies.Count, Is.EqualTo(100));
            Assert.That(latencies.Maximum, Is.EqualTo(1_000_000));
            Assert.That(elapsed, Is.EqualTo(TimeSpan.FromMilliseconds(100)));
            Assert.That(calls, Has.Length.EqualTo(100).And.All.StartsWith(word));
            Assert.That(plugin.Offence, Is.Null);
        });
        string[] inOrder = [.. Enumerable.Range(0, 100).Select(i => $"{word} {i * 4096 % Size}+4096")];
        Assert.That(calls, random ? Is.Not.EqualTo(inOrder) : Is.EqualTo(inOrder));
        Assert.That(
            BenchCommand.Report(options, 1, latencies, elapsed),
            Does.Contain("requests/s   1000\n").And.Contain("MB/s         4.1\n").And.Contain("p99  1000.0 us"));
    }

    [Test]
    public async Task As_many_are_in_flight_as_asked_for()
    {
        var gate = new Gate();
        await using CopyDisk disk = await CopyDisk.OpenAsync(
            new ModelPlugin(new byte[Size]) { Before = async _ => await gate.PassAsync() }, 2);
        using var stop = new CancellationTokenSource();
        Task run = new BenchRun(disk.Contexts, new BenchOptions { Depth = 5 }, new FakeTimeProvider()).RunAsync(stop.Token);
        await gate.ArrivedAsync(10);
        disk.Plugin.Before = _ => throw new OperationCanceledException();
        gate.Open();
        Assert.That(() => run.Soon(), Throws.InstanceOf<OperationCanceledException>());
    }

    [Test]
    public async Task A_failed_request_ends_it()
    {
        await using CopyDisk disk = await CopyDisk.OpenAsync(new ModelPlugin(new byte[Size])
        {
            Before = _ => throw new NbdException(NbdError.IoError, "worn out"),
        });
        Assert.That(
            () => new BenchRun(disk.Contexts, new BenchOptions(), TimeProvider.System).RunAsync(CancellationToken.None).Soon(),
            Throws.TypeOf<NbdException>().With.Message.Contains("worn out"));
    }

    [Test]
    public async Task A_disk_that_does_not_take_the_requests_is_refused()
    {
        var info = ModelPlugin.Everything with { BlockSize = new BlockSize(8192, 8192, 8192), CanWrite = false };
        await using CopyDisk disk = await CopyDisk.OpenAsync(new ModelPlugin(new byte[Size], info));
        Assert.Multiple(() =>
        {
            Refused(new BenchOptions(), "multiples");
            Refused(new BenchOptions { BlockSize = 16_384 }, "multiples");
            Refused(new BenchOptions { BlockSize = 2 * Size }, "fewer");
            Refused(new BenchOptions { BlockSize = 8192, Pattern = BenchPattern.Write }, "read-only");
        });
        void Refused(BenchOptions options, string says)
            => Assert.That(
                () => new BenchRun(disk.Contexts, options, TimeProvider.System),
                Throws.TypeOf<CommandException>().With.Message.Contains(says));
    }

    [Test]
    public void The_command_line_is_parsed()
    {
        BenchOptions options = BenchCommandLine.Parse(
            ["--rw=randwrite", "-b", "64K", "-d8", "-C", "2", "-t", "500ms", "[", "memory", "1M", "]"]);
        Assert.That(
            options with { Disk = null },
            Is.EqualTo(new BenchOptions
            {
                Pattern = BenchPattern.RandomWrite,
                BlockSize = 65_536,
                Depth = 8,
                Connections = 2,
                Duration = TimeSpan.FromMilliseconds(500),
            }));
        Assert.That(() => BenchCommandLine.Parse(["--rw=x", "a"]), Throws.TypeOf<CommandException>());
        Assert.That(() => BenchCommandLine.Parse([]), Throws.TypeOf<CommandException>().With.Message.Contains("0 were given"));
    }
}
