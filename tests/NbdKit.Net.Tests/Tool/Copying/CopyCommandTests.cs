using System.Security.Cryptography;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Tool.Copying;

/// <summary>The verb as a process.</summary>
[Parallelizable(ParallelScope.All)]
[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public sealed class CopyCommandTests : IDisposable
{
    private const int Seed = 11;

    private readonly ScratchDirectory _folder = new();

    public void Dispose() => _folder.Dispose();

    [Test]
    public async Task A_file_is_copied_to_a_new_file_with_its_holes()
    {
        string source = Sparse("source");
        (int status, string output, string error) = await ToolProcess.RunAsync(
            "copy", "--hash", "--verify", "-v", source, _folder["copy"]);

        Assert.That(status, Is.Zero, error);
        await SameFile.CheckAsync(_folder["copy"], source);
        Assert.That(output, Is.EqualTo($"{await HashAsync(source)}  {source}\n"));
        Assert.That(error, Does.Contain("copied 33554432 bytes"));
        if (OperatingSystem.IsLinux())
        {
            Assert.That(ScratchDirectory.AllocatedBytes(_folder["copy"]), Is.LessThan(8 << 20));
        }
    }

    [Test]
    public async Task A_file_that_is_there_is_made_anew()
    {
        string source = Sparse("source");
        _folder.Write("copy", TestData.Random(40 << 20));
        (int status, _, string error) = await ToolProcess.RunAsync("copy", source, _folder["copy"]);
        Assert.That(status, Is.Zero, error);
        await SameFile.CheckAsync(_folder["copy"], source);
    }

    [Test]
    public async Task Allocated_takes_space_for_everything()
    {
        (int status, _, string error) = await ToolProcess.RunAsync("copy", "--allocated", Sparse("source"), _folder["copy"]);
        Assert.That(status, Is.Zero, error);
        await SameFile.CheckAsync(_folder["copy"], _folder["source"]);
        if (OperatingSystem.IsLinux())
        {
            Assert.That(ScratchDirectory.AllocatedBytes(_folder["copy"]), Is.GreaterThanOrEqualTo(32 << 20));
        }
    }

    [Test]
    public async Task Standard_input_is_copied_to_a_file_and_a_chain_to_standard_output()
    {
        byte[] content = SparseData.Random(5_000_001, new Random(Seed), 900_000);
        await using (ToolProcess tool = ToolProcess.Start("copy", "-", _folder["copy"]))
        {
            await tool.Process.StandardInput.BaseStream.WriteAsync(content);
            tool.Process.StandardInput.Close();
            (int status, _, string error) = await tool.EndAsync();
            Assert.That(status, Is.Zero, error);
        }
        Assert.That(File.ReadAllBytes(_folder["copy"]).AsSpan().SequenceEqual(content));

        using var output = new MemoryStream();
        await using (ToolProcess tool = ToolProcess.Start("copy", "[", "--filter=offset", "file", _folder["copy"], "offset=1", "]", "-"))
        {
            await tool.Process.StandardOutput.BaseStream.CopyToAsync(output);
            Assert.That((await tool.EndAsync()).Status, Is.Zero);
        }
        Assert.That(output.ToArray().AsSpan().SequenceEqual(content.AsSpan(1)));
    }

    [Test]
    public async Task A_destination_that_is_too_small_or_fails_gives_status_1()
    {
        string source = Sparse("source");
        (int small, _, string smallError) = await ToolProcess.RunAsync("copy", source, "[", "memory", "1M", "]");
        (int failed, _, string failure) = await ToolProcess.RunAsync(
            "copy", source, "[", "--filter=error", "memory", "32M", "error-rate=100%", "error=ENOSPC", "]");
        Assert.Multiple(() =>
        {
            Assert.That(small, Is.EqualTo(1));
            Assert.That(smallError, Does.Contain("1048576").And.Contain("33554432"));
            Assert.That(failed, Is.EqualTo(1));
            Assert.That(failure, Does.Contain("destination").And.Contain("offset"));
        });
    }

    [Test]
    public async Task A_link_to_the_source_is_no_destination()
    {
        string source = Sparse("source");
        File.CreateSymbolicLink(_folder["link"], source);
        (int status, _, string error) = await ToolProcess.RunAsync("copy", source, _folder["link"]);
        Assert.That(status, Is.EqualTo(1));
        Assert.That(error, Does.Contain("both"));
        Assert.That(new FileInfo(source).Length, Is.EqualTo(32 << 20));
    }

    [Test]
    public async Task A_difference_found_by_the_verification_gives_status_2()
    {
        // Writes are forgotten.
        (int status, _, string error) = await ToolProcess.RunAsync("copy", "--verify", Sparse("source"), "[", "null", "32M", "]");
        Assert.That(status, Is.EqualTo(2), error);
        Assert.That(error, Does.Contain("differs from the source at offset 0"));
    }

    [Test]
    public async Task Interrupted_it_leaves_a_journal_and_goes_on_from_there()
    {
        string[] arguments =
        [
            "copy", "--resume", "--progress=1", "--requests=4", "-v",
            "[", "--filter=delay", "pattern", "32M", "rdelay=20ms", "]", _folder["copy"],
        ];
        await using (ToolProcess tool = ToolProcess.Start(arguments))
        {
            tool.Process.StandardInput.Close();
            while (int.Parse((await tool.LineAsync()).Split('/')[0]) < 20)
            {
            }
            tool.Signal(2);
            (int interrupted, _, string says) = await tool.EndAsync();
            Assert.That(interrupted, Is.EqualTo(3), says);
            Assert.That(says, Does.Contain("interrupted"));
        }
        Assert.That(File.Exists(_folder["copy.journal"]));

        (int status, _, string error) = await ToolProcess.RunAsync(arguments);
        (_, string hash, _) = await ToolProcess.RunAsync("copy", "--hash", "[", "pattern", "32M", "]", "null:");

        Assert.That(status, Is.Zero, error);
        Assert.That(error, Does.Match(@"[1-9]\d{6,} copied before"));
        Assert.That(hash, Does.StartWith(await HashAsync(_folder["copy"])));
        Assert.That(File.Exists(_folder["copy.journal"]), Is.False);
    }

    [Test]
    public async Task Help_is_shown_and_nonsense_refused()
    {
        (int status, string output, _) = await ToolProcess.RunAsync("copy", "--help");
        (int bad, _, string error) = await ToolProcess.RunAsync("copy", "--nosuch", "a", "b");
        Assert.That(status, Is.Zero);
        Assert.That(output, Does.Contain("--resume").And.Contain("Exit status"));
        Assert.That(bad, Is.EqualTo(1));
        Assert.That(error, Does.Contain("--nosuch"));
    }

    /// <summary>32 MiB with 4 MiB of data.</summary>
    private string Sparse(string name)
    {
        string path = _folder.WriteHole(name, 32 << 20);
        using FileStream file = File.OpenWrite(path);
        foreach (int megabyte in new[] { 0, 9, 10, 31 })
        {
            file.Position = (long)megabyte << 20;
            file.Write(TestData.Random(1 << 20, megabyte));
        }
        return path;
    }

    private static async Task<string> HashAsync(string path)
    {
        await using FileStream file = File.OpenRead(path);
        return Convert.ToHexStringLower(await SHA256.HashDataAsync(file));
    }
}
