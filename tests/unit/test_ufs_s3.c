/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/unit.h"

#include <stdio.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "ufs/ufs_s3_list.h"
#include "ufs/ufs_s3_sign.h"

/* The examples of the published description "Authenticating Requests (AWS Signature Version 4)" of Amazon S3. */
static const struct s3_credentials example = {"AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "",
                                              "us-east-1"};
#define EMPTY_HASH   "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
#define EXAMPLE_TIME 1369353600

static void expect_signature(const struct s3_to_sign *q, const char *signature)
{
    char authorization[S3_AUTHORIZATION_MAX], date[17];
    s3_sign(&example, q, authorization, date);
    ck_assert_str_eq(date, "20130524T000000Z");
    ck_assert_str_eq(strstr(authorization, "Signature=") + 10, signature);
}

TEST(signature_of_get_object_is_that_of_the_description)
{
    static const char *const headers[] = {"range: bytes=0-9"};
    expect_signature(&(struct s3_to_sign){.method = "GET",
                                          .host = "examplebucket.s3.amazonaws.com",
                                          .path = "/test.txt",
                                          .query = "",
                                          .payload_hash = EMPTY_HASH,
                                          .headers = headers,
                                          .header_count = 1,
                                          .now_s = EXAMPLE_TIME},
                     "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
}

TEST(signature_of_list_objects_is_that_of_the_description)
{
    expect_signature(&(struct s3_to_sign){.method = "GET",
                                          .host = "examplebucket.s3.amazonaws.com",
                                          .path = "/",
                                          .query = "max-keys=2&prefix=J",
                                          .payload_hash = EMPTY_HASH,
                                          .now_s = EXAMPLE_TIME},
                     "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
}

TEST(sha256_of_nothing)
{
    char hash[65];
    s3_sha256_hex("", 0, hash);
    ck_assert_str_eq(hash, EMPTY_HASH);
}

TEST(keys_are_encoded_and_decoded)
{
    struct buf b = {0};
    ck_assert_int_eq(s3_encode(TEXT("a b/ü~+%"), true, &b), 0);
    ck_assert_str_eq((char *)b.p, "a%20b/%C3%BC~%2B%25");
    b.n = 0;
    ck_assert_int_eq(s3_encode(TEXT("a/b"), false, &b), 0);
    ck_assert_str_eq((char *)b.p, "a%2Fb");
    buf_fini(&b);
    char text[] = "a+b%2Bc%zz%4";
    size_t n = s3_decode(text, strlen(text));
    ck_assert_uint_eq(n, strlen("a b+c%zz%4"));
    ck_assert_mem_eq(text, "a b+c%zz%4", n);
}

static const char page_text[] =
    "<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">"
    "<Name>b</Name><Prefix>p/</Prefix><KeyCount>3</KeyCount><EncodingType>url</EncodingType><IsTruncated>true</"
    "IsTruncated>"
    "<Contents><Key>p/z%20z</Key><LastModified>2026-11-20T18:00:00.123Z</LastModified><ETag>&quot;abc&quot;</ETag>"
    "<Size>1234567890123</Size><StorageClass>STANDARD</StorageClass></Contents>"
    "<Contents><Key>p/a</Key><LastModified>2026-11-20T18:00:00.000Z</LastModified><ETag>\"def\"</ETag><Size>0</Size>"
    "<Owner><ID>x</ID></Owner></Contents>"
    "<CommonPrefixes><Prefix>p/d/</Prefix></CommonPrefixes>"
    "<NextContinuationToken>tok/en==</NextContinuationToken></ListBucketResult>";

TEST(a_page_is_parsed_in_any_pieces_and_sorted)
{
    for (size_t piece = 1; piece < 40; piece++) {
        struct s3_page *p;
        ck_assert_int_eq(s3_page_new(&p), 0);
        for (size_t at = 0; at < strlen(page_text); at += piece)
            ck_assert_int_eq(s3_page_feed(p, page_text + at, min(piece, strlen(page_text) - at)), 0);
        const struct s3_page_entry *e;
        size_t n;
        const char *token;
        ck_assert_int_eq(s3_page_end(p, &e, &n, &token), 0);
        ck_assert_uint_eq(n, 3);
        ck_assert_str_eq(token, "tok/en==");
        ck_assert(text_equal(e[0].entry.key, TEXT("p/a")));
        ck_assert(text_equal(e[1].entry.key, TEXT("p/d/")));
        ck_assert_int_eq(e[1].entry.type, UFS_DIRECTORY);
        ck_assert(text_equal(e[2].entry.key, TEXT("p/z z")));
        ck_assert_str_eq(e[2].entry.identity.etag, "abc");
        ck_assert_uint_eq(e[2].entry.identity.size, 1234567890123ull);
        ck_assert_uint_eq(e[2].entry.identity.mtime_ns, 1795197600ull * 1000000000ull);
        s3_page_free(p);
    }
}

TEST(what_is_no_listing_is_refused)
{
    static const char *const bad[] = {
        "",
        "not xml",
        "<a><b></a>",
        "<!DOCTYPE x [<!ENTITY e \"eeee\">]><ListBucketResult><Contents><Key>&e;</Key></Contents></ListBucketResult>",
        "<ListBucketResult><Contents>",
        "<?xml version=\"1.0\"?><Error><Code>InternalError</Code><Message>try again</Message></Error>",
        "<html><body><Contents>x</Contents></body></html>",
    };
    for (size_t i = 0; i < array_size(bad); i++) {
        struct s3_page *p;
        const struct s3_page_entry *e;
        size_t n;
        const char *token;
        ck_assert_int_eq(s3_page_new(&p), 0);
        s3_page_feed(p, bad[i], strlen(bad[i]));
        ck_assert_int_eq(s3_page_end(p, &e, &n, &token), -CV_BAD_MESSAGE);
        s3_page_free(p);
    }
}

TEST(a_page_that_says_there_is_more_and_not_how_to_ask_for_it_breaks_off)
{
    static const struct {
        const char *text;
        bool breaks_off;
    } pages[] = {
        {"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>", false},
        {"<ListBucketResult></ListBucketResult>", false},
        {"<ListBucketResult><IsTruncated>true</IsTruncated><Contents><Key>a</Key></Contents></ListBucketResult>", true},
        {"<ListBucketResult><IsTruncated>true</IsTruncated><NextMarker>a</NextMarker></ListBucketResult>", true},
        {page_text, false},
    };
    for (size_t i = 0; i < array_size(pages); i++) {
        struct s3_page *p;
        const struct s3_page_entry *e;
        size_t n;
        const char *token;
        ck_assert_int_eq(s3_page_new(&p), 0);
        ck_assert_int_eq(s3_page_feed(p, pages[i].text, strlen(pages[i].text)), 0);
        ck_assert_int_eq(s3_page_end(p, &e, &n, &token), 0);
        ck_assert_int_eq(s3_page_breaks_off(p), pages[i].breaks_off);
        s3_page_free(p);
    }
}

TEST(errors_have_code_and_message)
{
    char code[64], message[128];
    s3_error_parse(TEXT("<?xml?><Error><Code>NoSuchBucket</Code><Message>no such</Message></Error>"), code,
                   sizeof(code), message, sizeof(message));
    ck_assert_str_eq(code, "NoSuchBucket");
    ck_assert_str_eq(message, "no such");
    s3_error_parse(TEXT("<Code>x</Code><Message>&#34;a&#34; is &lt;no&gt; region; R&amp;D &odd; &am</Message>"), code,
                   sizeof(code), message, sizeof(message));
    ck_assert_str_eq(message, "\"a\" is <no> region; R&D &odd; &am");
    s3_error_parse(TEXT("<Message>0123456789</Message>"), code, sizeof(code), message, 5);
    ck_assert_str_eq(message, "0123");
    s3_error_parse(TEXT("<Code>half"), code, sizeof(code), message, sizeof(message));
    ck_assert_str_eq(code, "");
}
