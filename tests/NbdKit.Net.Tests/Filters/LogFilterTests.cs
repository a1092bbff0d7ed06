using System.Text.RegularExpressions;
using Microsoft.Extensions.Logging;
using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public partial class LogFilterTests
{
    private readonly CallRecorder _calls = new();
    private readonly FakeTimeProvider _time = new();
    private readonly StringWriter _log = new() { NewLine = "\n" };

    private string[] Lines => [.. _log.ToString().Split('\n', StringSplitOptions.RemoveEmptyEntries).Select(line => line[27..])];

    [Test]
    public async Task The_life_of_a_context_is_logged_in_order()
    {
        await using (NbdBackend chain = Compose(new RecordingPlugin(_calls)))
        {
            await chain.ListExportsAsync(new ExportList(), true, null, default);
            await using NextContext disk = await chain.OpenAsync("a \"name\"\n");
            await disk.ReadAsync(new byte[512], 1024, default);
        }
        Assert.That(Lines, Is.EqualTo(new[]
        {
            "ListExports readonly=1 tls=0 ...",
            """...ListExports exports=[""] return=0""",
            "Ready thread_model=4",
            "Start",
            """context=1 Open export="a \u0022name\u0022\n" readonly=0 tls=0 ...""",
            "context=1 ...Open return=0",
            """context=1 Connect export="a \u0022name\u0022\n" tls=0 size=0x10000 minsize=0x0 prefsize=0x0 maxsize=0x0 write=1 flush=1 rotational=0 trim=1 zero=2 fua=2 extents=1 cache=2 fast_zero=1 multi_conn=1""",
            "context=1 Read id=1 offset=0x400 count=0x200 ...",
            "context=1 ...Read id=1 return=0",
            "context=1 Disconnect transactions=1",
            "context=1 Close",
            "Cleanup",
        }));
    }

    [Test]
    public async Task Every_operation_is_logged_with_its_flags()
    {
        await using NbdBackend chain = Compose(new RecordingPlugin(_calls));
        await using NextContext disk = await chain.OpenAsync();
        int before = Lines.Length;
        await disk.WriteAsync(new byte[16], 0, RequestFlags.Fua, default);
        await disk.FlushAsync(default);
        await disk.TrimAsync(32, 64, RequestFlags.None, default);
        await disk.ZeroAsync(1, 2, RequestFlags.MayTrim | RequestFlags.FastZero, default);
        await disk.CacheAsync(3, 4, default);
        Assert.That(Lines[before..].Where((_, i) => i % 2 == 0), Is.EqualTo(new[]
        {
            "context=1 Write id=1 offset=0x0 count=0x10 fua=1 ...",
            "context=1 Flush id=2 ...",
            "context=1 Trim id=3 offset=0x20 count=0x40 fua=0 ...",
            "context=1 Zero id=4 offset=0x1 count=0x2 trim=1 fua=0 fast=1 ...",
            "context=1 Cache id=5 offset=0x3 count=0x4 ...",
        }));
        Assert.That(Lines[before..].Where((_, i) => i % 2 == 1), Is.EqualTo(new[]
        {
            "context=1 ...Write id=1 return=0",
            "context=1 ...Flush id=2 return=0",
            "context=1 ...Trim id=3 return=0",
            "context=1 ...Zero id=4 return=0",
            "context=1 ...Cache id=5 return=0",
        }));
    }

    [Test]
    public async Task Extents_are_printed()
    {
        await using NbdBackend chain = Compose(new RecordingPlugin(_calls)
        {
            Extents = (offset, _, list) =>
            {
                list.Add(offset, 512, ExtentStatus.Data);
                list.Add(offset + 512, 1024, ExtentStatus.Hole | ExtentStatus.Zero);
            },
        });
        await using NextContext disk = await chain.OpenAsync();
        await disk.ExtentsAsync(1024, 4096, RequestFlags.RequestOne, new ExtentList(1024, 65536), default);
        Assert.That(Lines[^2..], Is.EqualTo(new[]
        {
            """context=1 Extents id=1 offset=0x400 count=0x1000 req_one=1 context="base:allocation" ...""",
            """context=1 ...Extents id=1 extents=[{ offset=0x400, length=0x200, type="data" }, { offset=0x600, length=0x400, type="hole,zero" }] return=0""",
        }));
    }

    [Test]
    public async Task What_is_emulated_is_logged_as_what_was_asked_for()
    {
        await using NbdBackend chain = Compose(new RecordingPlugin(_calls)
        {
            Info = (_, info) => info with { CanZero = Support.Emulate, CanFua = Support.Emulate, CanCache = Support.Emulate, CanExtents = false },
        });
        await using NextContext disk = await chain.OpenAsync();
        int before = Lines.Length;
        await disk.ZeroAsync(0, 512, RequestFlags.Fua, default);
        await disk.CacheAsync(0, 512, default);
        await disk.ExtentsAsync(0, 512, RequestFlags.None, new ExtentList(0, 512), default);
        Assert.That(Lines[before..].Select(line => line.Split(' ')[1].TrimStart('.')).Distinct(), Is.EqualTo(new[] { "Zero", "Cache", "Extents" }));
        Assert.That(_calls.Lines, Does.Contain("plugin#1.write").And.Contain("plugin#1.flush").And.Contain("plugin#1.read"));
    }

    [Test]
    public async Task A_failure_is_logged_with_its_error_and_stays_the_same()
    {
        var plugin = new RecordingPlugin(_calls);
        var failure = new NbdException(NbdError.NoSpace, "no\nroom \ud800");
        plugin.Script.Fail("write", _ => failure);
        plugin.Script.Fail("read", _ => new IOException("broken"));
        await using NbdBackend chain = Compose(plugin);
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(async () => await disk.WriteAsync(new byte[1], 0, RequestFlags.None, default), Throws.Exception.SameAs(failure));
        Assert.That(Lines[^1], Is.EqualTo("""context=1 ...Write id=1 return=-1 error=ENOSPC message="no\nroom \uFFFD" """.TrimEnd()));
        Assert.That(async () => await disk.ReadAsync(new byte[1], 0, default), Throws.InstanceOf<IOException>());
        Assert.That(Lines[^1], Is.EqualTo("""context=1 ...Read id=2 return=-1 error=EIO message="broken" """.TrimEnd()));
    }

    [Test]
    public async Task A_failed_open_is_logged()
    {
        var plugin = new RecordingPlugin(_calls);
        plugin.Script.Fail("open", 1, NbdError.PermissionDenied);
        await using NbdBackend chain = Compose(plugin);
        Assert.That(async () => await chain.OpenAsync(), Throws.TypeOf<NbdException>());
        Assert.That(Lines[^1], Does.StartWith("context=1 ...Open return=-1 error=EPERM"));
    }

    [Test]
    public async Task A_client_is_logged_by_the_number_of_its_connection()
    {
        await using NbdBackend chain = Compose(new RecordingPlugin(_calls));
        await chain.StartAsync();
        var connection = new NbdConnection(17, NbdPeer.Unknown, default, _ => { }, () => { });
        await chain.PreconnectAsync(connection, false, default);
        Assert.That(Lines[^2..], Is.EqualTo(new[]
        {
            """connection=17 Preconnect readonly=0 peer="stream" ...""",
            "connection=17 ...Preconnect return=0",
        }));
        await using NextContext disk = await chain.OpenEntryAsync(true, "x", connection, default);
        Assert.That(Lines[^2], Is.EqualTo("""connection=17 Open export="x" readonly=1 tls=0 ..."""));
    }

    [Test]
    public async Task Lines_are_whole_and_in_the_order_of_their_times_under_parallel_requests()
    {
        string path = Path.Combine(TestContext.CurrentContext.WorkDirectory, $"log-{Guid.NewGuid():N}.log");
        try
        {
            var plugin = new RecordingPlugin(_calls) { Script = { OnCall = async (_, _) => await Task.Yield() } };
            await using (NbdBackend chain = NbdBackend.Compose(plugin, new LogFilter { LogFile = path }))
            {
                await using NextContext disk = await chain.OpenAsync();
                await Task.WhenAll(Enumerable.Range(0, 200).Select(i => Task.Run(
                    async () => await disk.WriteAsync(new byte[100], i * 100, RequestFlags.None, default))));
            }
            string[] lines = await File.ReadAllLinesAsync(path);
            Assert.That(lines, Has.All.Matches<string>(line => AnyLine().IsMatch(line)));
            Assert.That(lines.Select(line => line[..26]), Is.Ordered);
            for (int id = 1; id <= 200; id++)
            {
                Assert.That(lines.Count(line => line.Contains($" Write id={id} ", StringComparison.Ordinal)), Is.EqualTo(1));
                Assert.That(lines.Count(line => line.EndsWith($" ...Write id={id} return=0", StringComparison.Ordinal)), Is.EqualTo(1));
            }
        }
        finally
        {
            File.Delete(path);
        }
    }

    [Test]
    public async Task The_file_is_replaced_or_appended_to([Values] bool append)
    {
        string path = Path.Combine(TestContext.CurrentContext.WorkDirectory, $"log-{Guid.NewGuid():N}.log");
        try
        {
            await File.WriteAllTextAsync(path, "before\n");
            var catalogue = new NbdCatalogue();
            catalogue.Add(LogFilter.Entry);
            await using (NbdBackend chain = catalogue.Compose(
                "memory", ["log"], [new("size", "1M"), new("logfile", path), new("logappend", append ? "yes" : "no")]))
            {
                await chain.StartAsync();
            }
            string[] lines = await File.ReadAllLinesAsync(path);
            Assert.That(lines[0] == "before", Is.EqualTo(append));
            Assert.That(lines[^1], Does.EndWith(" Cleanup"));
        }
        finally
        {
            File.Delete(path);
        }
    }

    [Test]
    public async Task A_log_that_cannot_be_written_fails_no_request_and_is_reported_once()
    {
        var report = new ListLoggerFactory();
        await using NbdBackend chain = NbdBackend.Compose(new RecordingPlugin(_calls), new LogFilter { Writer = new BrokenWriter() });
        await chain.StartAsync(report);
        await using NextContext disk = await chain.OpenAsync();
        await disk.WriteAsync(new byte[] { 1 }, 0, RequestFlags.None, default);
        var buffer = new byte[1];
        await disk.ReadAsync(buffer, 0, default);
        Assert.That(buffer[0], Is.EqualTo(1));
        Assert.That(report.Messages.Count(message => message.Contains("log failed in log", StringComparison.Ordinal)), Is.EqualTo(1));
    }

    [Test]
    public async Task A_logger_gets_the_lines_without_the_time()
    {
        var factory = new ListLoggerFactory();
        await using NbdBackend chain = NbdBackend.Compose(
            new RecordingPlugin(_calls), new LogFilter { Logger = factory.CreateLogger("requests") });
        await using NextContext disk = await chain.OpenAsync();
        await disk.FlushAsync(default);
        Assert.That(factory.Messages[^2..], Is.EqualTo(new[] { "context=1 Flush id=1 ...", "context=1 ...Flush id=1 return=0" }));
    }

    [Test]
    public async Task A_file_that_cannot_be_opened_or_no_target_at_all_ends_the_start()
    {
        await using NbdBackend none = NbdBackend.Compose(new RecordingPlugin(_calls), new LogFilter());
        Assert.That(async () => await none.StartAsync(), Throws.InvalidOperationException);
        await using NbdBackend missing = NbdBackend.Compose(
            new RecordingPlugin(_calls), new LogFilter { LogFile = "/nonexistent/directory/log" });
        Assert.That(async () => await missing.StartAsync(), Throws.InstanceOf<IOException>());
        Assert.That(() => new LogFilter { LogFile = "" }, Throws.ArgumentException);
        Assert.That(() => LogFilter.Entry.Create(new NbdParameters("log", [])), Throws.ArgumentException);
    }

    private NbdBackend Compose(INbdPlugin plugin)
        => NbdBackend.Compose(plugin, new LogFilter { Writer = _log, TimeProvider = _time });

    [GeneratedRegex(@"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6} (context=1 (Open|Connect|Disconnect|Close|Write|\.\.\.(Open|Write)).*|Ready .*|Start|Cleanup)$")]
    private static partial Regex AnyLine();

    private sealed class BrokenWriter : StringWriter
    {
        public override void WriteLine(string? value) => throw new IOException("disk full");
    }

    private sealed class ListLoggerFactory : ILoggerFactory, ILogger
    {
        public List<string> Messages { get; } = [];

        public void AddProvider(ILoggerProvider provider)
        {
        }

        public ILogger CreateLogger(string categoryName) => this;

        public IDisposable? BeginScope<TState>(TState state)
            where TState : notnull => null;

        public bool IsEnabled(LogLevel logLevel) => true;

        public void Log<TState>(
            LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter)
        {
            lock (Messages)
            {
                Messages.Add(formatter(state, exception));
            }
        }

        public void Dispose()
        {
        }
    }
}
