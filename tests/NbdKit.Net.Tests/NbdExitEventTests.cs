using System.Diagnostics;
using System.IO.Pipes;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests;

public sealed class NbdExitEventTests
{
    [Test]
    public async Task Files_come_and_go()
    {
        using var folder = new ScratchDirectory();
        NbdExitEvent created = NbdExitEvent.FileCreated(folder["x"]);
        NbdExitEvent deleted = NbdExitEvent.FileDeleted(folder["x"]);
        Assert.That((await LookAsync(created), await LookAsync(deleted)), Is.EqualTo((false, true)));
        folder.Write("x", []);
        Assert.That((await LookAsync(created), await LookAsync(deleted)), Is.EqualTo((true, false)));
        File.Delete(folder["x"]);
        Assert.That((await LookAsync(created), await LookAsync(deleted)), Is.EqualTo((false, true)));
        Assert.That(created.Description, Is.EqualTo($"{folder["x"]} was created"));
        Assert.That(() => NbdExitEvent.FileCreated(" "), Throws.ArgumentException);
        Assert.That(() => NbdExitEvent.FileDeleted(""), Throws.ArgumentException);
    }

    [Test]
    public async Task A_process_ends()
    {
        using Process process = Process.Start(new ProcessStartInfo("cat") { RedirectStandardInput = true, RedirectStandardOutput = true })!;
        NbdExitEvent ended = NbdExitEvent.ProcessExits(process.Id);
        Assert.That(await LookAsync(ended), Is.False);
        process.StandardInput.Close();
        await process.WaitForExitAsync().Soon();
        Assert.That(await LookAsync(ended), Is.True);
        Assert.That(await LookAsync(ended), Is.True);
        Assert.That(() => NbdExitEvent.ProcessExits(int.MaxValue), Throws.ArgumentException.With.Message.Contains("2147483647"));
    }

    [Test]
    public async Task A_process_that_nobody_waited_for_has_ended()
    {
        // The shell becomes a program that does not look after the child that the shell has left it, which ends with the first byte.
        using Process parent = Process.Start(
            new ProcessStartInfo("/bin/sh", ["-c", "exec 3<&0; head -c 1 <&3 >/dev/null & echo $!; exec sleep 60 3<&-"])
            {
                RedirectStandardInput = true,
                RedirectStandardOutput = true,
                RedirectStandardError = true,
            })!;
        int child = int.Parse((await parent.StandardOutput.ReadLineAsync())!, System.Globalization.CultureInfo.InvariantCulture);
        NbdExitEvent ended = NbdExitEvent.ProcessExits(child);
        Assert.That(await LookAsync(ended), Is.False);
        await parent.StandardInput.WriteAsync('x');
        await parent.StandardInput.FlushAsync();
        var real = Stopwatch.StartNew();
        while (!await LookAsync(ended))
        {
            Assert.That(real.Elapsed, Is.LessThan(TimeSpan.FromSeconds(10)));
            await Task.Yield();
        }
        parent.Kill();
        await parent.WaitForExitAsync().Soon();
    }

    [Test]
    [Platform("Unix")]
    public async Task A_pipe_is_closed_at_its_other_end_and_not_read()
    {
        using var reader = new AnonymousPipeServerStream(PipeDirection.In);
        var writer = new AnonymousPipeClientStream(PipeDirection.Out, reader.ClientSafePipeHandle);
        int descriptor = (int)reader.SafePipeHandle.DangerousGetHandle();
        NbdExitEvent closed = NbdExitEvent.PipeClosed(descriptor);
        writer.Write([1, 2]);
        Assert.That(await LookAsync(closed), Is.False);
        writer.Dispose();
        Assert.That(await LookAsync(closed), Is.True);
        byte[] left = new byte[2];
        await reader.ReadExactlyAsync(left);
        Assert.That(left, Is.EqualTo(new byte[] { 1, 2 }));
        Assert.That(() => NbdExitEvent.PipeClosed(-1), Throws.ArgumentException);
        Assert.That(() => NbdExitEvent.PipeClosed(999_999), Throws.ArgumentException);
    }

    [TestCase("exit 0", false)]
    [TestCase("exit 88", true)]
    [TestCase("exit 1", null)]
    [TestCase("exit 89", null)]
    [TestCase("kill $$", null)]
    [TestCase("no-such-command-at-all 2>/dev/null", null)]
    public async Task A_script_says_it_with_its_status(string command, bool? happened)
    {
        NbdExitEvent said = NbdExitEvent.Script(command);
        if (happened is { } expected)
        {
            Assert.That(await LookAsync(said), Is.EqualTo(expected));
        }
        else
        {
            Assert.That(async () => await LookAsync(said), Throws.InstanceOf<IOException>().With.Message.Contains("ended with status"));
        }
    }

    [Test]
    public async Task A_script_that_takes_too_long_is_killed()
    {
        using var folder = new ScratchDirectory();
        using var giveUp = new CancellationTokenSource();
        Task<bool> look = NbdExitEvent.Script($"echo $$ >{folder["pid"]}.new; mv {folder["pid"]}.new {folder["pid"]}; exec sleep 1000")
            .HasHappenedAsync(giveUp.Token).AsTask();
        var real = Stopwatch.StartNew();
        while (!File.Exists(folder["pid"]))
        {
            Assert.That(real.Elapsed, Is.LessThan(TimeSpan.FromSeconds(10)));
            await Task.Yield();
        }
        NbdExitEvent ended = NbdExitEvent.ProcessExits(
            int.Parse(await File.ReadAllTextAsync(folder["pid"]), System.Globalization.CultureInfo.InvariantCulture));
        await giveUp.CancelAsync();
        Assert.That(async () => await look.Soon(), Throws.InstanceOf<OperationCanceledException>());
        while (!await LookAsync(ended))
        {
            Assert.That(real.Elapsed, Is.LessThan(TimeSpan.FromSeconds(10)));
            await Task.Yield();
        }
    }

    private static Task<bool> LookAsync(NbdExitEvent awaited) => awaited.HasHappenedAsync(default).Soon();
}
