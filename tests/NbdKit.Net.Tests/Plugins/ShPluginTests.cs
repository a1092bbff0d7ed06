using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Plugins;

/// <summary>One script for all methods: how it is found, loaded and configured.</summary>
[Platform("Linux")]
public sealed class ShPluginTests
{
    private const string Script = """
        echo "$@" >> $LOG
        case "$1" in
          magic_config_key) echo disk ;;
          get_size) stat -c %s $tmpdir/inline-script.sh 2>/dev/null || echo 42 ;;
          list_exports) printf "$LIST" ;;
          config|config_complete) ;;
          *) exit 2 ;;
        esac
        """;

    private static string Text(string log, string list = "") => Script
        .Replace("$LOG", log, StringComparison.Ordinal).Replace("$LIST", list, StringComparison.Ordinal);

    [TestCase("#!/bin/sh\n")]
    [TestCase("#!/usr/bin/env bash\n")]
    [TestCase("")]
    public async Task A_file_is_run_as_its_first_line_says(string first)
    {
        using var folder = new ScratchDirectory();
        string path = folder.WriteProgram("a script", first + Text(folder["log"]));
        NbdBackend chain = new NbdCatalogue().Compose("sh", [], [new("", path), new("a", "b"), new("", "c d"), new("script", "e")]);
        NextContext disk = await chain.OpenAsync();
        Assert.That(disk.Info.Size, Is.EqualTo(42));
        await disk.DisposeAsync();
        await chain.DisposeAsync();
        string[] log = await File.ReadAllLinesAsync(folder["log"]);
        Assert.That(log.Take(6), Is.EqualTo(new[]
        {
            "load", "magic_config_key", "config a b", "config disk c d", "config disk e", "config_complete",
        }));
        Assert.That(log[^1], Is.EqualTo("unload"));
    }

    [Test]
    public void A_time_that_no_timer_can_wait_is_refused()
        => Assert.That(() => new ShPlugin { Timeout = TimeSpan.FromDays(60) }, Throws.InstanceOf<ArgumentOutOfRangeException>());

    [Test]
    public async Task A_text_is_kept_in_the_directory_that_scripts_share()
    {
        using var folder = new ScratchDirectory();
        string text = Text(folder["log"]);
        NbdBackend chain = NbdBackend.Compose(new ShPlugin { Text = text });
        NextContext disk = await chain.OpenAsync();
        Assert.That(disk.Info.Size, Is.EqualTo(text.Length));
        await disk.DisposeAsync();
        await chain.DisposeAsync();
    }

    [TestCase("", "")]
    [TestCase(@"a\nb\n", "a-|b-")]
    [TestCase(@"a\nb", "a-|b-")]
    [TestCase(@"NAMES\na\n", "a-")]
    [TestCase(@"\n", "-")]
    [TestCase(@"INTERLEAVED\na\none\nb\ntwo\n", "a-one|b-two")]
    [TestCase(@"INTERLEAVED\na\none\nb", "a-one|b-")]
    [TestCase(@"NAMES+DESCRIPTIONS\na\nb\none\ntwo\n", "a-one|b-two")]
    [TestCase(@"NAMES+DESCRIPTIONS\na\nb\none\n", "a-one|b-")]
    [TestCase(@"NAMES+DESCRIPTIONS\n", "")]
    public async Task Exports_are_listed_in_any_of_the_formats(string printed, string expected)
    {
        using var folder = new ScratchDirectory();
        NbdBackend chain = NbdBackend.Compose(new ShPlugin { Text = Text(folder["log"], printed) });
        await chain.StartAsync();
        var list = new ExportList();
        await chain.ListExportsAsync(list, readOnly: false, null, CancellationToken.None);
        Assert.That(string.Join('|', list.Select(e => $"{e.Name}-{e.Description}")), Is.EqualTo(expected));
        await chain.DisposeAsync();
    }

    [Test]
    public void A_script_that_is_not_there_or_refuses_ends_the_start([Values("/nonexistent/script", "/dev/null")] string path)
    {
        NbdBackend chain = NbdBackend.Compose(new ShPlugin { Path = path });
        NbdException failure = Assert.ThrowsAsync<NbdException>(() => chain.StartAsync().AsTask())!;
        Assert.That(failure.Message, Does.Contain("cannot be run"));
        NbdBackend refusing = NbdBackend.Compose(new ShPlugin { Text = "echo EINVAL not today >&2; exit 1" });
        Assert.That(
            Assert.ThrowsAsync<NbdException>(() => refusing.StartAsync().AsTask())!.Message, Is.EqualTo("sh: load: not today"));
        NbdBackend bare = NbdBackend.Compose(new ShPlugin { Text = "exit 2", Parameters = [new("", "x")] });
        Assert.That(Assert.ThrowsAsync<NbdException>(() => bare.StartAsync().AsTask())!.Message, Does.Contain("magic_config_key"));
    }

    [Test]
    public void Settings_that_do_not_fit_are_named()
    {
        Assert.That(
            Assert.Throws<ArgumentException>(() => new NbdCatalogue().Compose("sh", [], [new("a", "b"), new("script", "c")]))!.Message,
            Does.Contain("first parameter"));
        Assert.ThrowsAsync<InvalidOperationException>(
            () => NbdBackend.Compose(new ShPlugin { Text = "", Path = "/bin/true" }).StartAsync().AsTask());
        Assert.Throws<ArgumentOutOfRangeException>(() => _ = new ShPlugin { MaxProcesses = 0 });
        Assert.Throws<ArgumentOutOfRangeException>(() => _ = new ShPlugin { Timeout = TimeSpan.Zero });
        Assert.Throws<ArgumentOutOfRangeException>(() => _ = new EvalPlugin { Timeout = TimeSpan.FromSeconds(-2) });
    }

    [Test]
    public async Task A_script_can_stop_the_server_and_send_its_client_away([Values(4, 5, 6, 7, 8)] int code)
    {
        Peer.Require("nbdinfo");
        string text = $"case $1 in get_size) echo 1M ;; can_write|can_flush) exit 0 ;; flush) exit {code} ;; *) exit 2 ;; esac";
        await using InteropServer server = await InteropServer.StartAsync(
            NbdBackend.Compose(new ShPlugin { Text = text }), lenient: true);
        NbdClient client = await NbdClient.ConnectAsync(server.Uri);
        Exception? failure = null;
        try
        {
            await client.FlushAsync().Soon();
        }
        catch (Exception e)
        {
            failure = e;
        }
        Assert.That(
            failure switch { null => "done", NbdException e => e.Error.ToString(), _ => "gone" },
            code == 6 ? Is.EqualTo("gone") : code is 4 or 7 ? Is.EqualTo("done") : Is.EqualTo(nameof(NbdError.Shutdown)));
        Exception later = Assert.CatchAsync(() => client.FlushAsync().Soon())!;
        Assert.That(later, Is.InstanceOf<NbdClientException>().Or.InstanceOf<NbdException>());
        await client.DisposeAsync();
        if (code >= 6)
        {
            // Only that client was sent away.
            await using NbdClient next = await NbdClient.ConnectAsync(server.Uri);
            Assert.That(next.Info.Size, Is.EqualTo(1 << 20));
        }
        else
        {
            using var deadline = new CancellationTokenSource(Peer.Deadline);
            while (true)
            {
                try
                {
                    await (await NbdClient.ConnectAsync(server.Uri, cancellationToken: deadline.Token)).DisposeAsync();
                }
                catch (NbdClientException)
                {
                    break;
                }
            }
        }
    }

    [Test]
    public async Task Exit_codes_that_stand_for_nothing_are_failures([Values(1, 9, 10, 11, 12, 13, 14, 15, 16, 255)] int code)
    {
        await using NbdBackend chain = NbdBackend.Compose(new ShPlugin
        {
            Text = $"case $1 in get_size) echo 1M ;; pread) echo ENOSPC full >&2; exit {code} ;; *) exit 2 ;; esac",
        });
        await using NextContext disk = await chain.OpenAsync();
        NbdException failure = TestData.Failure(() => TestData.ReadAsync(disk, 0, 1));
        Assert.That((failure.Error, failure.Message), Is.EqualTo((NbdError.NoSpace, "sh: pread: full")));
    }
}
