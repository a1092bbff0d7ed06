using System.Text;
using NbdKit.Filters;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;
using NbdKit.Tests.Tool;

namespace NbdKit.Tests.Interop;

/// <summary>Encrypted disks of cryptsetup and QEMU, and ones written here for them.</summary>
[Parallelizable(ParallelScope.All)]
public sealed class LuksTests
{
    private const string Passphrase = "open sesame";
    private const int Size = 2 << 20;

    private static string[] Secret { get; } = ["--object", $"secret,id=s,data={Passphrase}"];

    private static string Luks(string path) => $"driver=luks,file.driver=file,file.filename={path},key-secret=s";

    private static NbdBackend Chain(string path)
        => NbdBackend.Compose(new FilePlugin { Path = path }, new LuksFilter { Passphrase = Encoding.UTF8.GetBytes(Passphrase) });

    private static async Task<string> FormatAsync(ScratchDirectory folder, string name, long size, params string[] options)
    {
        string disk = folder.WriteHole(name, size);
        string key = folder.Write(name + ".key", Encoding.UTF8.GetBytes(Passphrase));
        await Peer.OutputAsync(
            "cryptsetup", ["luksFormat", "--batch-mode", "--pbkdf-force-iterations=1000", "--key-file", key, .. options, disk]);
        return disk;
    }

    private static byte[] Content(int size, int seed)
    {
        byte[] content = TestData.Random(size, seed);
        content.AsSpan(size / 4, size / 4).Clear();
        return content;
    }

    [TestCase("aes-xts-plain64", 512, "sha256")]
    [TestCase("aes-xts-plain64", 256, "sha512")]
    [TestCase("aes-xts-plain", 512, "sha1")]
    [TestCase("aes-cbc-essiv:sha256", 256, "sha256")]
    [TestCase("aes-cbc-essiv:sha256", 128, "sha1")]
    [TestCase("aes-cbc-plain64", 256, "sha512")]
    [TestCase("aes-cbc-plain", 128, "sha256")]
    public async Task A_disk_of_cryptsetup_is_read_and_written_as_QEMU_does(string cipher, int keyBits, string hash)
    {
        Peer.Require("qemu-img", "qemu-io", "cryptsetup");
        using var folder = new ScratchDirectory();
        string disk = await FormatAsync(
            folder, "disk", Size + (4 << 20), "--type=luks1", $"--cipher={cipher}", $"--key-size={keyBits}", $"--hash={hash}");
        await CompareWithQemuAsync(folder, disk);
    }

    [TestCase("cipher-alg=aes-256,cipher-mode=xts,ivgen-alg=plain64,hash-alg=sha256")]
    [TestCase("cipher-alg=aes-128,cipher-mode=xts,ivgen-alg=plain,hash-alg=sha1")]
    [TestCase("cipher-alg=aes-256,cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=sha256,hash-alg=sha512")]
    public async Task A_disk_of_QEMU_is_read_and_written_as_QEMU_does(string options)
    {
        Peer.Require("qemu-img", "qemu-io");
        using var folder = new ScratchDirectory();
        PeerResult made;
        int tries = 0;
        do
        {
            made = await Peer.RunAsync(
                "qemu-img", ["create", "-f", "luks", .. Secret, "-o", $"key-secret=s,iter-time=10,{options}", folder["disk"], $"{Size}"]);
        }
        // QEMU measures how fast it can hash, and gives up if that takes less than a tick of the clock.
        while (made.Errors.Contains("accurate CPU usage", StringComparison.Ordinal) && ++tries < 10);
        made.Expect(0);
        await CompareWithQemuAsync(folder, folder["disk"]);
    }

    private static async Task CompareWithQemuAsync(ScratchDirectory folder, string disk)
    {
        long size;
        await using (NbdBackend chain = Chain(disk))
        await using (NextContext opened = await chain.OpenAsync())
        {
            size = opened.Info.Size;
        }
        byte[] content = Content((int)size, 1);
        string plain = folder.Write("plain", content);
        await Peer.OutputAsync(
            "qemu-img", ["convert", "-n", .. Secret, "-f", "raw", "--target-image-opts", plain, Luks(disk)]);
        await using (NbdBackend chain = Chain(disk))
        await using (InteropServer server = await InteropServer.StartAsync(chain))
        {
            await Peer.OutputAsync("qemu-img", "compare", "-f", "raw", "-F", "raw", plain, server.Uri);
            content.AsSpan(12_345, 300_001).Fill(0xCD);
            content.AsSpan(700_001, 100).Fill(0xAB);
            await Peer.OutputAsync(
                "qemu-io", "-f", "raw", "-c", "write -P 0xCD 12345 300001", "-c", "write -P 0xAB -f 700001 100", "-c", "flush", server.Uri);
        }
        await File.WriteAllBytesAsync(plain, content);
        string printed = await Peer.OutputAsync(
            "qemu-img", ["compare", .. Secret, "--image-opts", $"driver=raw,file.driver=file,file.filename={plain}", Luks(disk)]);
        Assert.That(printed, Does.Contain("Images are identical"));
    }

    [Test]
    public async Task A_disk_written_here_is_read_by_nbdkit()
    {
        Peer.Require("nbdkit", "nbdcopy", "cryptsetup");
        using var folder = new ScratchDirectory();
        string disk = await FormatAsync(folder, "disk", Size + (4 << 20), "--type=luks1");
        byte[] content;
        await using (NbdBackend chain = Chain(disk))
        await using (NextContext opened = await chain.OpenAsync())
        {
            content = Content((int)opened.Info.Size, 3);
            await opened.WriteAsync(content, 0, RequestFlags.None, default);
        }
        await Peer.OutputAsync(
            "nbdkit", "-U", "-", "file", disk, "--filter=luks", $"passphrase={Passphrase}", "--run", $"nbdcopy \"$uri\" {folder["copy"]}");
        Assert.That((await File.ReadAllBytesAsync(folder["copy"])).AsSpan().SequenceEqual(content));
    }

    [TestCase(512, "aes-xts-plain64", 512, "sha256")]
    [TestCase(4096, "aes-xts-plain64", 512, "sha256")]
    [TestCase(2048, "aes-cbc-essiv:sha256", 256, "sha512")]
    public async Task A_disk_of_version_2_that_is_written_here_is_decrypted_by_cryptsetup(int sector, string cipher, int keyBits, string hash)
    {
        Peer.Require("cryptsetup");
        using var folder = new ScratchDirectory();
        string disk = await FormatAsync(
            folder, "disk", (16 << 20) + (1 << 20), "--type=luks2", "--pbkdf=pbkdf2", $"--sector-size={sector}",
            $"--cipher={cipher}", $"--key-size={keyBits}", $"--hash={hash}");
        byte[] content = Content(1 << 20, 4);
        await using (NbdBackend chain = Chain(disk))
        await using (NextContext opened = await chain.OpenAsync())
        {
            Assert.That(opened.Info.Size, Is.EqualTo(content.Length));
            Assert.That(opened.Info.CanTrim, Is.False);
            await opened.WriteAsync(content, 0, RequestFlags.None, default);
            byte[] data = TestData.Random(10_001, 5);
            await opened.WriteAsync(data, 77_777, RequestFlags.None, default);
            data.CopyTo(content, 77_777);
            Assert.That((await TestData.ReadAsync(opened, 0, content.Length)).AsSpan().SequenceEqual(content));
        }
        await Peer.OutputAsync(
            "cryptsetup", "reencrypt", "--decrypt", "--batch-mode", "--force-offline-reencrypt", "--key-file", folder["disk.key"],
            "--header", folder["header"], disk);
        byte[] decrypted = await File.ReadAllBytesAsync(disk);
        Assert.That(decrypted.AsSpan(0, content.Length).SequenceEqual(content));
    }

    [Test]
    public async Task A_header_of_version_2_may_be_long_and_have_several_key_slots()
    {
        Peer.Require("cryptsetup");
        using var folder = new ScratchDirectory();
        string disk = await FormatAsync(
            folder, "disk", 20 << 20, "--type=luks2", "--pbkdf=pbkdf2", "--luks2-metadata-size=128k", "--luks2-keyslots-size=4m");
        string other = folder.Write("other", Encoding.UTF8.GetBytes("another one"));
        await Peer.OutputAsync(
            "cryptsetup", "luksAddKey", "--batch-mode", "--pbkdf=pbkdf2", "--pbkdf-force-iterations=1000", "--key-file", folder["disk.key"], disk, other);
        await Peer.OutputAsync("cryptsetup", "config", "--key-slot=1", "--priority=prefer", disk);
        await using (NbdBackend chain = NbdBackend.Compose(
            new FilePlugin { Path = disk }, new LuksFilter { Passphrase = "another one"u8.ToArray() }))
        await using (NextContext opened = await chain.OpenAsync())
        {
            Assert.That(opened.Info.Size, Is.EqualTo(15 << 20));
        }
    }

    [TestCase("argon2id", 4, 32, 1)]
    [TestCase("argon2id", 5, 3000, 2)]
    [TestCase("argon2i", 4, 1024, 1)]
    public async Task A_passphrase_that_is_hashed_with_Argon2_opens_a_disk(string kind, int passes, int memory, int lanes)
    {
        Peer.Require("cryptsetup");
        using var folder = new ScratchDirectory();
        string disk = folder.WriteHole("disk", 17 << 20);
        string key = folder.Write("key", Encoding.UTF8.GetBytes(Passphrase));
        await Peer.OutputAsync(
            "cryptsetup", "luksFormat", "--batch-mode", "--type=luks2", $"--pbkdf={kind}", $"--pbkdf-force-iterations={passes}",
            $"--pbkdf-memory={memory}", $"--pbkdf-parallel={lanes}", "--key-file", key, disk);
        await using (NbdBackend chain = Chain(disk))
        await using (NextContext opened = await chain.OpenAsync())
        {
            Assert.That(opened.Info.Size, Is.EqualTo(1 << 20));
        }
        await using NbdBackend small = NbdBackend.Compose(
            new FilePlugin { Path = disk }, new LuksFilter { Passphrase = Encoding.UTF8.GetBytes(Passphrase), MaxMemory = 31 << 10 });
        NbdException e = TestData.Failure(async () => await small.OpenAsync());
        Assert.That(e.Message, Does.EndWith($"key slot 0 would take more memory than is allowed ({memory * 1024L} bytes)"));
        await using NbdBackend quick = NbdBackend.Compose(
            new FilePlugin { Path = disk }, new LuksFilter { Passphrase = Encoding.UTF8.GetBytes(Passphrase), MaxIterations = 100 });
        e = TestData.Failure(async () => await quick.OpenAsync());
        Assert.That(e.Message, Does.EndWith("key slot 0 would take more iterations than are allowed"));
    }

    [Test]
    public async Task The_command_reads_the_passphrase_from_a_file_and_serves_many_connections()
    {
        Peer.Require("nbdcopy", "qemu-img", "cryptsetup");
        using var folder = new ScratchDirectory();
        string disk = await FormatAsync(folder, "disk", (8 << 20) + (2 << 20), "--type=luks1");
        string plain = folder.Write("plain", Content(8 << 20, 6));
        string uri = $"nbd+unix:///?socket={folder["s"]}";
        await using (ToolProcess tool = ToolProcess.Start(
            "-U", folder["s"], "--filter=luks", "--filter=blocksize", "file", disk, $"passphrase=+{folder["disk.key"]}"))
        {
            await tool.LineAsync();
            await Peer.OutputAsync("nbdcopy", "--connections=4", "--requests=16", "--request-size=131072", plain, uri);
            await Peer.OutputAsync("qemu-img", "compare", "-f", "raw", "-F", "raw", plain, uri);
            tool.Signal(15);
            (int status, _, string error) = await tool.EndAsync();
            Assert.That((status, error), Is.EqualTo((0, "")));
        }
        string printed = await Peer.OutputAsync(
            "qemu-img", ["compare", .. Secret, "--image-opts", $"driver=raw,file.driver=file,file.filename={plain}", Luks(disk)]);
        Assert.That(printed, Does.Contain("Images are identical"));
    }

    [Test]
    public async Task The_command_reads_the_passphrase_from_its_standard_input_and_from_a_descriptor([Values("-", "-7")] string passphrase)
    {
        Peer.Require("nbdinfo", "cryptsetup");
        using var folder = new ScratchDirectory();
        string disk = await FormatAsync(folder, "disk", 4 << 20, "--type=luks1");
        string line = folder.Write("line", Encoding.UTF8.GetBytes(Passphrase + "\n"));
        string assembly = Path.Combine(AppContext.BaseDirectory, "nbdkit-net.dll");
        string printed = await Peer.OutputAsync(
            "sh", "-c",
            $"exec {(passphrase == "-" ? "0" : "7")}<{line}; dotnet exec {assembly} -U - --filter=luks file {disk} passphrase={passphrase} --run 'nbdinfo --size \"$uri\"'");
        Assert.That(printed.Trim(), Is.EqualTo($"{2 << 20}"));
    }
}
