using System.Security.Cryptography;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests;

public sealed class NbdCopyStreamTests
{
    [Test]
    public async Task A_stream_of_unknown_length_is_copied_to_a_disk([Range(1, 20)] int seed)
    {
        var random = new Random(seed);
        byte[] content = SparseData.Random(random.Next(200_000), random);
        byte[] before = TestData.Random(content.Length + random.Next(10_000), seed);
        var info = ModelPlugin.Everything with { BlockSize = new BlockSize(1 << random.Next(13), 8192) };
        await using CopyDisk destination = await CopyDisk.OpenAsync(new ModelPlugin(before, info, random) { Yields = true });

        NbdCopyResult result = await NbdCopy.CopyAsync(
            NbdCopySource.From(new Trickle(content, new Random(seed))),
            destination.Destination,
            new NbdCopyOptions { RequestSize = 4096 << random.Next(4), ComputeHash = true, Verify = random.Next(2) == 0 }).Soon();

        Assert.That(destination.Plugin.Offence, Is.Null, $"seed {seed}");
        Assert.That(destination.Plugin.Data, Is.EqualTo((byte[])[.. content, .. before[content.Length..]]), $"seed {seed}");
        Assert.That(result.Size, Is.EqualTo(content.Length));
        Assert.That(result.Sha256!.Value.ToArray(), Is.EqualTo(SHA256.HashData(content)));
    }

    [Test]
    public async Task A_disk_is_written_to_a_stream_in_order([Range(1, 20)] int seed)
    {
        var random = new Random(seed);
        byte[] content = SparseData.Random(random.Next(300_000), random);
        await using CopyDisk source = await CopyDisk.OpenAsync(new ModelPlugin(content, null, random) { Yields = true });
        using var stream = new MemoryStream();

        await NbdCopy.CopyAsync(
            source.Source, NbdCopyDestination.To(stream), new NbdCopyOptions { RequestSize = 4096, MaxRequestsInFlight = 9 }).Soon();

        Assert.That(stream.ToArray(), Is.EqualTo(content), $"seed {seed}");
    }

    [Test]
    public async Task Holes_are_skipped_in_a_stream_that_is_zero_and_can_seek()
    {
        byte[] content = new byte[100_000];
        content[40_000] = 1;
        await using CopyDisk source = await CopyDisk.OpenAsync(content);
        using var stream = new MemoryStream();

        NbdCopyResult result = await NbdCopy.CopyAsync(
            source.Source, NbdCopyDestination.To(stream), new NbdCopyOptions { DestinationIsZero = true });

        Assert.That(stream.ToArray(), Is.EqualTo(content));
        Assert.That((result.BytesWritten, result.BytesZeroed), Is.EqualTo((4096, 0)));
    }

    [Test]
    public async Task A_stream_is_copied_to_a_stream()
    {
        byte[] content = SparseData.Random(1 << 20, new Random(2));
        using var stream = new MemoryStream();
        NbdCopyResult result = await NbdCopy.CopyAsync(
            NbdCopySource.From(new Trickle(content, new Random(1))), NbdCopyDestination.To(stream)).Soon();
        Assert.That(stream.ToArray(), Is.EqualTo(content));
        Assert.That(result.Size, Is.EqualTo(content.Length));
    }

    [Test]
    public async Task A_stream_that_is_longer_than_the_disk_fails_the_copy()
    {
        await using CopyDisk destination = await CopyDisk.OpenAsync(new byte[65_536]);
        NbdCopyException unknown = Assert.ThrowsAsync<NbdCopyException>(() => NbdCopy.CopyAsync(
            NbdCopySource.From(new Trickle(new byte[65_537], new Random(1))), destination.Destination).Soon())!;
        NbdCopyException known = Assert.ThrowsAsync<NbdCopyException>(() => NbdCopy.CopyAsync(
            NbdCopySource.From(new MemoryStream(new byte[65_537])), destination.Destination).Soon())!;
        Assert.That((unknown.Fault, unknown.Error), Is.EqualTo((NbdCopyFault.Destination, NbdError.NoSpace)));
        Assert.That((known.Fault, known.Error), Is.EqualTo((NbdCopyFault.Destination, NbdError.NoSpace)));
    }

    [Test]
    public async Task A_stream_that_fails_is_named_with_the_offset()
    {
        await using CopyDisk disk = await CopyDisk.OpenAsync(TestData.Random(65_536));
        NbdCopyException read = Assert.ThrowsAsync<NbdCopyException>(() => NbdCopy.CopyAsync(
            NbdCopySource.From(new Trickle(new byte[40_000], new Random(1), fails: true)),
            disk.Destination,
            new NbdCopyOptions { RequestSize = 16_384 }).Soon())!;
        Assert.That((read.Fault, read.Offset), Is.EqualTo((NbdCopyFault.Source, 32_768)));

        NbdCopyException write = Assert.ThrowsAsync<NbdCopyException>(() => NbdCopy.CopyAsync(
            disk.Source,
            NbdCopyDestination.To(new MemoryStream(new byte[50_000])),
            new NbdCopyOptions { RequestSize = 16_384, UseExtents = false }).Soon())!;
        Assert.That((write.Fault, write.Offset), Is.EqualTo((NbdCopyFault.Destination, 49_152)));
    }

    /// <summary>A stream that gives a little at a time and cannot seek.</summary>
    private sealed class Trickle(byte[] content, Random random, bool fails = false) : Stream
    {
        private int _at;

        public override bool CanRead => true;

        public override bool CanSeek => false;

        public override bool CanWrite => false;

        public override long Length => throw new NotSupportedException();

        public override long Position { get => throw new NotSupportedException(); set => throw new NotSupportedException(); }

        public override int Read(byte[] buffer, int offset, int count) => throw new NotSupportedException();

        public override async ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default)
        {
            if (random.Next(3) == 0)
            {
                await Task.Yield();
            }
            int count = Math.Min(Math.Min(buffer.Length, 1 + random.Next(9000)), content.Length - _at);
            if (count == 0 && fails)
            {
                throw new IOException("the tape broke");
            }
            content.AsMemory(_at, count).CopyTo(buffer);
            _at += count;
            return count;
        }

        public override void Flush() => throw new NotSupportedException();

        public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();

        public override void SetLength(long value) => throw new NotSupportedException();

        public override void Write(byte[] buffer, int offset, int count) => throw new NotSupportedException();
    }
}
