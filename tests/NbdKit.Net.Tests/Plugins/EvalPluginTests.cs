using System.Globalization;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;
using NbdKit.Tool;

namespace NbdKit.Tests.Plugins;

/// <summary>Scripts that stand for the methods of a plugin: what they are told, and what is made of what they say.</summary>
[Platform("Linux")]
public sealed class EvalPluginTests
{
    private const string File = "$tmpdir/disk";
    private static readonly CancellationToken None = CancellationToken.None;

    /// <summary>A disk of 256 KiB in a file, with everything that there is.</summary>
    private static readonly Dictionary<string, string> Disk = new()
    {
        ["get_ready"] = $"truncate -s 256K {File}",
        ["get_size"] = "echo 256K",
        ["thread_model"] = "echo parallel",
        ["pread"] = $"dd if={File} skip=$4 count=$3 iflag=count_bytes,skip_bytes status=none",
        ["pwrite"] = $"dd of={File} seek=$4 conv=notrunc oflag=seek_bytes status=none",
        ["flush"] = "exit 0",
        ["can_fua"] = "echo native",
        ["trim"] = $"fallocate -p -o $4 -l $3 -n {File}",
        ["zero"] = $"case $5 in *fast*) echo ENOTSUP slow >&2; exit 1;; esac; fallocate -p -o $4 -l $3 -n {File}",
        ["can_fast_zero"] = "exit 0",
        ["extents"] = "printf '# all\\n\\n0 64K\\n64K 192K 0\\n'",
    };

    private static async Task<NextContext> OpenAsync(Dictionary<string, string> scripts, bool readOnly = false)
    {
        NbdBackend chain = NbdBackend.Compose(new EvalPlugin { Scripts = scripts });
        return await chain.OpenAsync("", readOnly).AsTask().WaitAsync(Peer.Deadline);
    }

    private static Dictionary<string, string> With(params (string Method, string Text)[] scripts)
    {
        var all = new Dictionary<string, string> { ["get_size"] = "echo 1M", ["pread"] = "head -c $3 /dev/zero" };
        foreach ((string method, string text) in scripts)
        {
            all[method] = text;
        }
        return all;
    }

    private static async Task CloseAsync(NextContext disk)
    {
        NbdBackend chain = disk.Backend;
        await disk.DisposeAsync();
        await chain.DisposeAsync();
    }

    [Test]
    public async Task A_history_of_requests_leaves_what_it_should()
    {
        int seed = Environment.TickCount;
        NextContext disk = await OpenAsync(Disk);
        await new ChainHistory(disk, new byte[256 << 10], new Random(seed), $"seed {seed}").RunAsync(60);
        await CloseAsync(disk);
    }

    [Test]
    public async Task Many_requests_run_at_once_if_the_script_says_so()
    {
        Dictionary<string, string> scripts = With(
            ("thread_model", "echo parallel"),
            // Each waits until all four are there.
            ("pread", "touch $tmpdir/$4; while [ $(ls $tmpdir | wc -l) -lt 4 ]; do sleep 0.01; done; head -c $3 /dev/zero"));
        NextContext disk = await OpenAsync(scripts);
        await Task.WhenAll(Enumerable.Range(0, 4).Select(i => disk.ReadAsync(new byte[512], 512 * i, None).AsTask()))
            .WaitAsync(Peer.Deadline);
        await CloseAsync(disk);
    }

    [TestCase("")]
    [TestCase("echo serialize_requests")]
    [TestCase("echo nonsense")]
    public async Task Otherwise_they_run_one_after_the_other(string model)
    {
        Dictionary<string, string> scripts = With(
            ("pread", "mkdir $tmpdir/busy || exit 1; sleep 0.02; rmdir $tmpdir/busy; head -c $3 /dev/zero"));
        if (model.Length > 0)
        {
            scripts["thread_model"] = model;
        }
        NextContext disk = await OpenAsync(scripts);
        await Task.WhenAll(Enumerable.Range(0, 6).Select(i => disk.ReadAsync(new byte[512], 512 * i, None).AsTask()))
            .WaitAsync(Peer.Deadline);
        await CloseAsync(disk);
    }

    [Test]
    public async Task The_model_serialize_connections_lets_one_client_in_at_a_time()
    {
        NbdBackend chain = NbdBackend.Compose(new EvalPlugin
        {
            Scripts = With(("thread_model", "echo serialize_connections")),
        });
        await chain.StartAsync();
        NextContext first = await chain.OpenAsync().AsTask().WaitAsync(Peer.Deadline);
        Task<NextContext> second = chain.OpenAsync().AsTask();
        await first.ReadAsync(new byte[512], 0, None);
        Assert.That(second.IsCompleted, Is.False);
        await first.DisposeAsync();
        await (await second.WaitAsync(Peer.Deadline)).DisposeAsync();
        await chain.DisposeAsync();
    }

    [TestCase("echo ENOSPC full up >&2; exit 1", NbdError.NoSpace, "pread: full up")]
    [TestCase("echo enomem >&2; exit 16", NbdError.OutOfMemory, "without saying why")]
    [TestCase("echo EROFS >&2; exit 1", NbdError.PermissionDenied, "without")]
    [TestCase("echo EDQUOT a >&2; exit 255", NbdError.NoSpace, "pread: a")]
    [TestCase("echo EINVALID name >&2; exit 1", NbdError.IoError, "EINVALID name")]
    [TestCase("exit 1", NbdError.IoError, "without saying why")]
    [TestCase("printf 'EINVAL first\\nsecond' >&2; exit 9", NbdError.InvalidArgument, "pread: first")]
    [TestCase("printf 'a\\033[1mb' >&2; exit 1", NbdError.IoError, "a?[1mb")]
    [TestCase("echo >&2; exit 5", NbdError.Shutdown, "")]
    [TestCase("echo EIO >&2; exit 8", NbdError.IoError, "")]
    [TestCase("exit 6", NbdError.Shutdown, "")]
    [TestCase("exit 3", NbdError.IoError, "false")]
    [TestCase("exit 2", NbdError.IoError, "must have")]
    [TestCase("kill -9 $$", NbdError.IoError, "signal 9")]
    [TestCase("head -c 511 /dev/zero", NbdError.IoError, "511 bytes instead of 512")]
    [TestCase("head -c 513 /dev/zero", NbdError.IoError, "more than 512 bytes")]
    [TestCase("cat /dev/zero", NbdError.IoError, "more than 512 bytes")]
    [TestCase("yes >&2", NbdError.IoError, "killed after")]
    public async Task What_goes_wrong_is_told(string script, NbdError error, string message)
    {
        NbdBackend chain = NbdBackend.Compose(new EvalPlugin
        {
            Scripts = With(("pread", script)),
            Timeout = TimeSpan.FromSeconds(message == "killed after" ? 0.5 : 30),
        });
        NextContext disk = await chain.OpenAsync();
        NbdException failure = Assert.ThrowsAsync<NbdException>(() => disk.ReadAsync(new byte[512], 0, None).AsTask())!;
        Assert.That(failure.Error, Is.EqualTo(error), failure.Message);
        Assert.That(failure.Message, Does.StartWith("eval: pread: ").And.Contain(message));
        await CloseAsync(disk);
    }

    [Test]
    public async Task A_script_need_not_read_what_is_written()
    {
        NextContext disk = await OpenAsync(With(("pwrite", "exit 0"), ("thread_model", "echo parallel")));
        for (int i = 0; i < 5; i++)
        {
            await disk.WriteAsync(new byte[1 << 20], 0, RequestFlags.None, None).AsTask().WaitAsync(Peer.Deadline);
        }
        await CloseAsync(disk);
    }

    [Test]
    public async Task A_process_in_the_background_holds_nobody_up()
    {
        NextContext disk = await OpenAsync(With(("pread", "sleep 300 & head -c $3 /dev/zero; echo $! > $tmpdir/../last$PPID")));
        string note = Path.Combine(Path.GetTempPath(), $"last{Environment.ProcessId}");
        await disk.ReadAsync(new byte[512], 0, None).AsTask().WaitAsync(Peer.Deadline);
        _ = NativeKill(await System.IO.File.ReadAllTextAsync(note));
        System.IO.File.Delete(note);
        await CloseAsync(disk);
    }

    [Test]
    public async Task A_client_that_leaves_takes_its_scripts_and_their_children_with_it()
    {
        using var folder = new ScratchDirectory();
        NextContext disk = await OpenAsync(With(("pread", $"echo $$ > {folder["a"]}; sleep 300 & echo $! > {folder["b"]}; wait")));
        using var leaving = new CancellationTokenSource();
        Task reading = disk.ReadAsync(new byte[512], 0, leaving.Token).AsTask();
        while (!System.IO.File.Exists(folder["b"]) || new FileInfo(folder["b"]).Length == 0)
        {
            await Task.Delay(5);
        }
        await leaving.CancelAsync();
        Assert.CatchAsync<OperationCanceledException>(() => reading.WaitAsync(Peer.Deadline));
        foreach (string name in new[] { "a", "b" })
        {
            string process = $"/proc/{(await System.IO.File.ReadAllTextAsync(folder[name])).Trim()}";
            // What is killed may be a zombie of the system's first process for a moment.
            while (StatOf(process) is { Length: > 0 } stat && stat[0] != 'Z')
            {
                await Task.Delay(5);
            }
        }
        await CloseAsync(disk);
    }

    [Test]
    public async Task Nothing_stays_behind()
    {
        using var folder = new ScratchDirectory();
        string note = folder["tmpdir"];
        NextContext disk = await OpenAsync(With(("get_ready", $"echo $tmpdir > {note}; mkdir $tmpdir/a; touch $tmpdir/a/b")));
        await disk.ReadAsync(new byte[512], 0, None);
        int before = Directory.GetFiles("/proc/self/fd").Length;
        for (int i = 0; i < 100; i++)
        {
            await disk.ReadAsync(new byte[512], 0, None);
        }
        Assert.That(Directory.GetFiles("/proc/self/fd").Length, Is.LessThan(before + 50), "descriptors");
        // Those of other tests are there for a moment only.
        for (int left = 200; HasZombies(); left--)
        {
            Assert.That(left, Is.Positive, "zombies");
            await Task.Delay(10);
        }
        string scripts = await System.IO.File.ReadAllTextAsync(note);
        Assert.That(Directory.Exists(scripts.Trim()));
        await CloseAsync(disk);
        Assert.That(Directory.Exists(scripts.Trim()), Is.False);
    }

    [Test]
    public async Task Scripts_inherit_nothing_but_their_three_streams()
    {
        // The shell blocks signals while it waits, so that it is grep that tells.
        const string Facts = "ls -l /proc/$$/fd; grep -E 'SigBlk|SigIgn' /proc/self/status";
        NbdBackend chain = NbdBackend.Compose(new EvalPlugin
        {
            Scripts = With(("thread_model", "echo parallel"), ("export_description", Facts)),
        });
        await chain.StartAsync();
        // Several at a time, so that each could have what is for another.
        NextContext[] disks = await Task.WhenAll(Enumerable.Range(0, 8).Select(_ => chain.OpenAsync().AsTask()));
        // What the test itself was given without its knowledge every program gets.
        string[] others = [.. Pipes(await Peer.OutputAsync("sh", "-c", Facts))];
        Assert.That(others, Has.Length.GreaterThanOrEqualTo(3));
        foreach (NextContext opened in disks)
        {
            Assert.That(Pipes(opened.Info.Description!).Except(others).Select(pipe => pipe[0]), Is.EqualTo("012"), opened.Info.Description);
        }
        NextContext disk = disks[0];
        foreach (NextContext other in disks[1..])
        {
            await other.DisposeAsync();
        }
        string description = disk.Info.Description!;
        Assert.That(description, Does.Contain("SigBlk:\t0000000000000000"));
        ulong ignored = ulong.Parse(description.Split("SigIgn:\t")[1][..16], NumberStyles.HexNumber, CultureInfo.InvariantCulture);
        Assert.That(ignored & (1UL << 12), Is.Zero, "a broken pipe ends it");
        await CloseAsync(disk);
    }

    [Test]
    public async Task Many_scripts_at_once_get_each_what_is_theirs()
    {
        NextContext disk = await OpenAsync(With(
            ("thread_model", "echo parallel"), ("pwrite", "cat > $tmpdir/at$4"), ("pread", "cat $tmpdir/at$4"), ("get_size", "echo 64M")));
        await Task.WhenAll(Enumerable.Range(0, 64).Select(async i =>
        {
            byte[] data = TestData.Random(200_000 + i, i);
            await disk.WriteAsync(data, i << 20, RequestFlags.None, None);
            byte[] read = new byte[data.Length];
            await disk.ReadAsync(read, i << 20, None);
            Assert.That(read.AsSpan().SequenceEqual(data), $"script {i}");
        })).WaitAsync(Peer.Deadline);
        await CloseAsync(disk);
    }

    [Test]
    public async Task What_a_client_sends_is_an_argument_and_no_command()
    {
        using var folder = new ScratchDirectory();
        string evil = $"$(touch {folder["x"]})`touch {folder["x"]}`; touch {folder["x"]} #'\"\n";
        NbdBackend chain = NbdBackend.Compose(new EvalPlugin
        {
            Scripts = With(("open", "printf '%s' \"$3\""), ("export_description", "printf '%s' \"$2\"")),
        });
        NextContext disk = await chain.OpenAsync(evil);
        Assert.That(disk.Info.Description, Is.EqualTo(evil[..^1]), "the end of the last line goes twice");
        Assert.That(System.IO.File.Exists(folder["x"]), Is.False);
        await CloseAsync(disk);
    }

    [Test]
    public async Task What_the_scripts_say_they_can_do_is_what_is_offered()
    {
        NextContext disk = await OpenAsync(With(
            ("pwrite", ""), ("can_write", "exit 0"), ("can_zero", "exit 3"), ("can_cache", "echo emulate"), ("can_flush", "exit 0"),
            ("is_rotational", "exit 0"), ("can_multi_conn", "exit 0"), ("block_size", "echo 512 4K 1M")));
        NbdExportInfo info = disk.Info;
        Assert.That((info.CanWrite, info.CanZero, info.CanFastZero, info.CanCache), Is.EqualTo((true, Support.Emulate, true, Support.Emulate)));
        Assert.That((info.CanFlush, info.CanFua, info.CanTrim, info.CanExtents), Is.EqualTo((true, Support.Emulate, false, false)));
        Assert.That((info.IsRotational, info.CanMultiConn, info.BlockSize), Is.EqualTo((true, true, new BlockSize(512, 4096, 1 << 20))));
        await CloseAsync(disk);
    }

    [TestCase("get_size", "echo many")]
    [TestCase("get_size", "exit 2")]
    [TestCase("get_size", "printf '\\377'")]
    [TestCase("block_size", "echo 1 2")]
    [TestCase("block_size", "echo 3 4K 1M")]
    [TestCase("can_fua", "echo perhaps")]
    [TestCase("can_write", "exit 1")]
    [TestCase("open", "printf 'a\\0b'")]
    public void An_answer_that_makes_no_sense_fails_the_open(string method, string script)
    {
        NbdBackend chain = NbdBackend.Compose(new EvalPlugin { Scripts = With(("pwrite", ""), (method, script)) });
        NbdException failure = Assert.ThrowsAsync<NbdException>(() => chain.OpenAsync().AsTask())!;
        Assert.That(failure.Message, Does.StartWith($"eval: {method}: "));
        Assert.DoesNotThrowAsync(() => chain.DisposeAsync().AsTask());
    }

    [Test]
    public async Task Zeroes_are_written_where_the_script_cannot_make_them()
    {
        NextContext disk = await OpenAsync(With(
            ("pwrite", "cat > $tmpdir/w"), ("zero", "echo EOPNOTSUPP >&2; exit 1"), ("can_fast_zero", "exit 0"),
            ("pread", "head -c $3 $tmpdir/w")));
        await disk.ZeroAsync(0, 1000, RequestFlags.None, None);
        NbdException fast = Assert.ThrowsAsync<NbdException>(
            () => disk.ZeroAsync(0, 1000, RequestFlags.FastZero, None).AsTask())!;
        byte[] read = new byte[1000];
        await disk.ReadAsync(read, 0, None);
        Assert.That((fast.Error, read.Any(b => b != 0)), Is.EqualTo((NbdError.NotSupported, false)));
        await CloseAsync(disk);
    }

    [Test]
    public async Task Parameters_and_the_life_of_the_plugin_reach_the_scripts_in_order()
    {
        using var folder = new ScratchDirectory();
        var catalogue = new NbdCatalogue();
        string log = $"echo \"$@\" >> {folder["log"]}";
        string[] methods = ["config", "config_complete", "thread_model", "get_ready", "after_fork", "open", "close", "unload"];
        NbdBackend chain = catalogue.Compose(
            "eval", [],
            [new("other", "a b"), .. methods.Select(m => new KeyValuePair<string, string>(m, log)), new("get_size", "echo 5"), new("x.y", "'")]);
        NextContext disk = await chain.OpenAsync("name", readOnly: true);
        await disk.DisposeAsync();
        await chain.DisposeAsync();
        Assert.That(await System.IO.File.ReadAllLinesAsync(folder["log"]), Is.EqualTo(new[]
        {
            "config other a b", "config x.y '", "config_complete", "thread_model", "get_ready", "after_fork", "open true name false",
            "close ", "unload",
        }));
    }

    [Test]
    public void A_parameter_that_no_script_takes_is_refused()
    {
        NbdBackend chain = new NbdCatalogue().Compose("eval", [], [new("get_size", "echo 5"), new("size", "5")]);
        NbdException failure = Assert.ThrowsAsync<NbdException>(() => chain.StartAsync().AsTask())!;
        Assert.That(failure.Message, Does.Contain("size="));
        Assert.Throws<ArgumentException>(() => _ = new EvalPlugin { Scripts = new Dictionary<string, string> { ["read"] = "" } });
    }

    [Test]
    public async Task The_script_for_missing_methods_stands_for_all_of_them()
    {
        NextContext disk = await OpenAsync(With(("missing", "case $1 in is_rotational) exit 0;; *) exit 2;; esac")));
        Assert.That((disk.Info.IsRotational, disk.Info.CanMultiConn), Is.EqualTo((true, false)));
        await CloseAsync(disk);
    }

    private static int NativeKill(string pid)
        => NativeMethods.SendSignal(int.Parse(pid, CultureInfo.InvariantCulture), 9);

    /// <summary>The descriptors that are pipes in what ls says of them, as in "0 -> pipe:[1234]".</summary>
    private static IEnumerable<string> Pipes(string listing)
        => listing.Split('\n').Where(line => line.Contains("-> pipe:", StringComparison.Ordinal))
            .Select(line => string.Join(' ', line.Split(' ')[^3..]));

    private static bool HasZombies()
        => Directory.GetDirectories("/proc").Where(process => char.IsAsciiDigit(Path.GetFileName(process)[0]))
            .Any(process => StatOf(process).StartsWith($"Z {Environment.ProcessId} ", StringComparison.Ordinal));

    /// <summary>State, parent and more of a process that may be gone.</summary>
    private static string StatOf(string process)
    {
        try
        {
            return System.IO.File.ReadAllText(Path.Combine(process, "stat")).Split(") ")[^1];
        }
        catch (IOException)
        {
            return "";
        }
    }
}
